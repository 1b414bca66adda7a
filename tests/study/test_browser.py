"""A rater's session in a real browser: order, reload, answers, download. Skipped where there is no browser."""

import json

import pytest
from study_browser import browser, open_page, rank, shown
from study_parts import METHODS

from itjax.study import scores
from itjax.study.answers import read_answers
from itjax.study.plan import QUESTIONS


@pytest.fixture(scope="module")
def chromium():
    """A headless browser; its contexts share nothing."""
    with browser() as opened:
        yield opened


def test_a_rater_answers_reloads_and_saves(chromium, study, tmp_path):
    folder, key = study
    methods = {video: method for item in key.items.values() for video, method in item.videos.items()}
    context = chromium.new_context(accept_downloads=True)
    page = open_page(context, folder)
    page.click("#begin")
    plays_together(page)
    page.click("#next")
    assert page.inner_text("#missing").startswith("Please rank all videos: lip sync, body sync")
    seen = []
    for number in range(len(key.items)):
        assert page.inner_text("#heading") == f"Group {number + 1} of {len(key.items)}"
        seen.append(shown(page))
        ranks = [METHODS.index(methods[video]) + 1 for video in shown(page)]
        for question in range(len(QUESTIONS)):
            rank(page, question, ranks[:2])  # the third follows
        if number == 2:
            page.close()  # as a crash
            page = open_page(context, folder)
            assert shown(page) == seen[-1] and page.locator(".ranks input:checked").count() == 3 * len(QUESTIONS)
        page.click("#next")
    with page.expect_download() as download:
        page.click("#download")
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert page.input_value("#text") == path.read_text() and not page.errors
    # another browser is another rater, with another order
    other = open_page(chromium.new_context(), folder)
    other.click("#begin")
    assert other.evaluate("state.seed") != page.evaluate("state.seed") and not other.errors
    content = json.loads(path.read_text())
    assert path.name == f"answers-{content['rater']}.json" and [answer["shown"] for answer in content["answers"]] == seen
    answers = read_answers(path, key)
    assert [interval.mean for interval in scores.score([answers], key)["naturalness"].ranks.values()] == [1, 2, 3]
    assert scores.consistency(answers, key) == 1


def plays_together(page):
    """One video is heard; when all have ended, they can be played again; a video played alone is heard and alone."""
    page.click("#together")
    assert page.eval_on_selector_all("video", "all => all.map(v => v.muted)") == [False, True, True]
    page.wait_for_function("[...document.querySelectorAll('video')].every(v => v.ended)")
    page.wait_for_function("document.querySelector('#together').textContent === 'Play all together'")
    page.evaluate("() => { const v = document.querySelectorAll('video')[1]; v.loop = true; return v.play(); }")
    page.wait_for_function("!document.querySelectorAll('video')[1].muted")


def test_the_keyboard_is_enough(chromium, study):
    folder, _ = study
    page = open_page(chromium.new_context(), folder)
    page.focus("#begin")
    page.keyboard.press("Enter")
    page.locator("#questions .ranks input").first.focus()
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")  # A takes 2; B, which is still without rank, is not touched
    state = page.evaluate("state.ranks[state.order[0]].lips")
    assert state == {shown(page)[0]: 2}
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.inner_text("#said") == "Lip sync: A 2, B 1, C 3"
    page.keyboard.press("ArrowRight")  # B takes 2 from A, which takes B's
    assert page.inner_text("#said") == "Lip sync: A 1, B 2, C 3" and not page.errors


def test_without_storage_the_rater_is_warned(chromium, study):
    folder, _ = study
    context = chromium.new_context()
    context.add_init_script("Object.defineProperty(window, 'localStorage', {get() { throw new Error('denied'); }})")
    page = open_page(context, folder)
    assert page.is_visible("#unsaved") and page.is_visible("#begin") and not page.errors


def test_what_cannot_be_played_cannot_be_ranked(chromium, study):
    folder, _ = study
    for video in (folder / "videos").iterdir():
        video.unlink()
    page = open_page(chromium.new_context(), folder)
    page.click("#begin")
    page.wait_for_selector("figure .notice")
    assert page.inner_text("figure .notice >> nth=0") == "Video A cannot be played. Please tell the people who asked you."
    for question in range(len(QUESTIONS)):
        rank(page, question, [1, 2])
    page.click("#next")
    assert "try another browser" in page.inner_text("#missing") and page.evaluate("state.at") == 0
