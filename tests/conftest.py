"""What holds for all tests: one thread, no network, no display, set before torch is first imported; one command line.

typer's test runner builds all commands anew for every call; they are built once here. Imports leave no garbage, and so
none is looked for until all tests are collected.
"""

import functools
import gc
import os

import typer.main
import typer.testing

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"

typer.testing._get_command = functools.cache(typer.main.get_command)
gc.disable()


def pytest_collection_finish():
    gc.freeze()
    gc.enable()
