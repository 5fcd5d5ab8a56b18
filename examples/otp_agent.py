"""An agent that signs in to three sites, and asks a person for the one-time code of each: three turns in a row.

Run ``python examples/otp_agent.py``. It uses the database that MONGODB_URI names, or else a private one.
"""

from __future__ import annotations

import asyncio

from pydantic import BaseModel, Field

from streamline import Context, Continue, Done, NonRetriableError, RunHandle, Streamline, Workflow
from streamline.errors import InvalidInput

Totals = dict[str, int]


class Code(BaseModel):
    digits: str = Field(pattern=r"^\d{6}$")


class Errand(BaseModel):
    sites: list[str]


class Phone:
    """The person's phone: each site sends it a code, and takes that code once."""

    def __init__(self) -> None:
        self.codes: dict[str, str] = {}

    async def send_code(self, site: str) -> None:
        assert site not in self.codes, "the person would get a second code, and not know which is right"
        self.codes[site] = f"{123456 + len(self.codes)}"
        print(f"{site} sends a code")

    async def sign_in(self, site: str, code: str) -> int:
        if self.codes[site] != code:
            raise NonRetriableError(f"{site}: wrong code")
        self.codes[site] = "used"
        return 10 * len(self.codes)


phone = Phone()

agent = Workflow("agent", input=Errand)


@agent.step
async def collect(ctx: Context[Errand]) -> Totals:
    sites = ctx.input.sites

    async def turn(totals: Totals, i: int) -> Continue[Totals] | Done[Totals]:
        if i == len(sites):
            return Done(totals)
        await ctx.call("send", phone.send_code, sites[i])
        answer = await ctx.ask(f"Code of {sites[i]}?", model=Code)  # parked, for as long as it takes
        total = await ctx.call("sign-in", phone.sign_in, sites[i], answer.data.digits)
        return Continue({**totals, sites[i]: total})

    return await ctx.loop("sites", Totals(), turn)


async def person(app: Streamline, run: RunHandle[Totals]) -> None:
    """Answer what the agent asks; mistype every code first."""
    answered = 0
    while answered < 3:
        for question in await app.pending_waits("question", run_id=run.id):
            assert question.reason is not None
            site = question.reason.removeprefix("Code of ").removesuffix("?")
            try:
                await app.answer(run.id, {"digits": phone.codes[site][:5]})
            except InvalidInput:
                print(f"{question.reason} That was too short.")  # refused at once; the agent goes on waiting
            await app.answer(run.id, {"digits": phone.codes[site]}, by="ann")
            answered += 1
        await asyncio.sleep(0.02)


async def main() -> None:
    async with Streamline(workflows=[agent]) as app:
        run = await app.start(agent, Errand(sites=["bank", "mail", "tax"]))
        await person(app, run)
        print(await run.result(timeout="30s"))


if __name__ == "__main__":
    asyncio.run(main())
