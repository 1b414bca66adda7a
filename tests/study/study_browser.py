"""A rater in a real browser (Chromium by playwright), where there is one."""

import contextlib
import shutil
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextlib.contextmanager
def browser():
    """A headless Chromium; skips the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no browser: pip install playwright")
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        try:
            yield opened
        finally:
            opened.close()


def open_page(context, study: Path):
    """The study's page, opened as a file; errors of its scripts are collected in `page.errors`."""
    page = context.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda told: told.type == "error" and page.errors.append(told.text))
    page.goto((study / "index.html").as_uri())
    return page


def shown(page) -> list[str]:
    """Random names of the videos on the page, from left to right."""
    return page.eval_on_selector_all(
        "figure video[aria-label^=Video]", "all => all.map(v => v.src.split('/').pop().split('.')[0])"
    )


def rank(page, question: int, ranks: list[int]) -> None:
    """Chooses the ranks of the shown videos in a question."""
    groups = page.locator("#questions .question").nth(question).locator(".ranks")
    for i, number in enumerate(ranks):
        groups.nth(i).locator("input").nth(number - 1).check()
