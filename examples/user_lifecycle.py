"""A user's life in three workflows: signed up, onboarded with what they do meanwhile, and gone at any moment.

Run ``python examples/user_lifecycle.py``. It uses the database that MONGODB_URI names, or else a private one.
"""

from __future__ import annotations

import asyncio

from pydantic import BaseModel

from streamline import CancelOn, Context, OnCompletion, OnEvent, Streamline, Workflow


class User(BaseModel):
    user_id: str
    name: str


# A sign-up starts an onboarding; whatever it waits for, it ends when the user is deleted.
onboarding = Workflow(
    "onboarding",
    input=User,
    triggers=[OnEvent("user.created")],
    cancel_on=[CancelOn("user.deleted", match="user_id")],
)

# The end of an onboarding starts a survey, with the onboarding's output.
survey = Workflow("survey", input=dict, triggers=[OnCompletion(onboarding)])

asked = asyncio.Event()


@onboarding.step
async def confirm(ctx: Context[User]) -> str:
    told = await ctx.wait_for("email.confirmed", match={"user_id": ctx.input.user_id}, timeout="7d")
    return str(told["address"])


@onboarding.step
async def first_project(ctx: Context[User]) -> dict[str, str]:
    told = await ctx.wait_for("project.created", match={"owner": ctx.input.user_id}, timeout="30d")
    return {"address": ctx.output(confirm), "name": ctx.input.name, "project": told["title"]}


@survey.step
async def ask(ctx: Context[dict[str, str]]) -> None:
    print(f"to {ctx.input['address']}: how do you like {ctx.input['project']}, {ctx.input['name']}?")
    asked.set()


async def main() -> None:
    async with Streamline(workflows=[onboarding, survey]) as app:
        for name in ("ann", "bob"):
            started = await app.send_event("user.created", {"user_id": name, "name": name.title()})
            print(f"{name}: {started} onboarding started")

        # Nobody has to know the run, nor whether it waits yet.
        await app.send_event("email.confirmed", {"user_id": "ann", "address": "ann@example.org"})
        await app.send_event("project.created", {"owner": "ann", "title": "Garden"})

        print(f"bob leaves: {await app.send_event('user.deleted', {'user_id': 'bob'})} onboarding cancelled")

        await asyncio.wait_for(asked.wait(), 30)
        print(dict(sorted((await app.count_runs(onboarding)).items())))


if __name__ == "__main__":
    asyncio.run(main())
