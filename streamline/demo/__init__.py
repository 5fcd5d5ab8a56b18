"""The demonstration: a file of orders, a payment service that fails, two workers, and one of them is killed.

It is a user of the package like any other. `streamline.demo.show` runs it; nothing is imported here, because the worker
processes need none of what paints the terminal.
"""
