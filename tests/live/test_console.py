"""The console in a real Chromium, with the real loop under it."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from axe_playwright_python.sync_playwright import Axe
from live_loop import CALM_DAYS, USE_CASE, Loop, open_console
from playwright.sync_api import Browser, Locator, Page, expect

from tailrace.backends.kafka import read_topic
from tailrace.contracts.topics import Topics

TOPICS = Topics(USE_CASE)
MINUTE_MS = 60_000
PANELS = {
    "status": r"Healthy|Degraded|Waiting|Collecting",
    "flow": r"Events[\d,]+ records/s.*lag [\d,]+ records, [\d.]+ s",
    "quality": r"champion.*\d\.\d{4}",
    "drift": r"amount_eur",
    "models": r"champion.*export_parity passed",
    "retraining": r"initial by feedback.*registered",
    "workers": r"features.*feedback.*inference.*ops.*rollout.*trainer",
    "audit": r"rollout.*promoted.*passed its gates",
}

pytestmark = pytest.mark.timeout(280)


def played(work: Callable[[], None]) -> threading.Thread:
    """Plays a part of the stream while the page is looked at."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def answer(page: Page, reason: str) -> None:
    """Fills in the reason and confirms."""
    page.get_by_label("Reason, for the audit trail").fill(reason)
    page.locator("#ask-yes").click()
    expect(page.locator("#ask")).to_be_hidden()


def champion(page: Page) -> Locator:
    """The row of the model that serves."""
    return page.locator("#models tr", has=page.get_by_text("serves", exact=True))


def versions_from(loop: Loop, first_day: int) -> set[str]:
    values = [m.value for m in read_topic(loop.settings, TOPICS.predictions) if m.value is not None]
    rows = [msgspec.json.decode(value) for value in values]
    since_ms = loop.events["occurred_at_ms"][0].as_py() // 86_400_000 * 86_400_000 + first_day * 86_400_000
    return {row["model_version"] for row in rows if row["event_time_ms"] >= since_ms}


def test_operator_sees_the_drift_retrains_promotes_and_rolls_back(
    page: Page, loop: Loop, complaints: list[str]
) -> None:
    for panel, text in PANELS.items():
        expect(page.locator(f"#{panel}")).to_have_text(re.compile(text, re.DOTALL))
    calm = page.locator("#drift tr", has_text=re.compile(r"^amount_eur"))
    expect(calm).not_to_contain_text("drifted")

    # The drift shows by itself, without a reload, within a minute of its first day's end.
    playing = played(lambda: loop.play(CALM_DAYS, CALM_DAYS + 1))
    drifted = page.locator("#drift tr", has_text=re.compile(r"^amount_eur")).get_by_text("drifted")
    expect(drifted).to_be_visible(timeout=MINUTE_MS)
    expect(page.locator("#latency-figures")).to_have_text(re.compile(r"p50 \d+ ms, p95 [\d,]+ ms, p99"))
    expect(page.locator("#status")).to_have_text(re.compile("Degraded"))
    playing.join()
    page.get_by_role("button", name="amount_eur", exact=True).click()
    expect(page.locator("#drift-subject")).to_contain_text("amount_eur: population stability index")
    shoot(page, "console")

    page.get_by_role("button", name="Retrain now").click()
    answer(page, "amounts are ten times what they were")
    trained = page.locator("#models tr", has_text="card_fraud-manual")
    expect(trained).to_contain_text("shadow", timeout=MINUTE_MS)
    new, old = (row.locator("td").first.inner_text() for row in (trained, champion(page)))

    trained.get_by_role("button", name=f"Promote {new}").click()
    expect(page.locator("#ask-effect")).to_contain_text(f"Version {new} takes all traffic; version {old} stays loaded")
    answer(page, "it knows the new amounts")
    expect(champion(page)).to_contain_text("card_fraud-manual", timeout=MINUTE_MS)
    loop.play(CALM_DAYS + 1, CALM_DAYS + 2)
    assert {new} == versions_from(loop, CALM_DAYS + 1)

    page.get_by_role("button", name="Roll back").click()
    answer(page, "second thoughts")
    expect(page.locator("#audit")).to_contain_text("second thoughts", timeout=MINUTE_MS)
    loop.play(CALM_DAYS + 2, CALM_DAYS + 3)
    assert {old} == versions_from(loop, CALM_DAYS + 2)

    # The same by command, and the page follows.
    assert f"champion is version {new}" in loop.command("promote", new, "--reason", "it was right after all")
    expect(champion(page)).to_contain_text("card_fraud-manual")
    assert f"champion is version {old}" in loop.command("rollback", "--reason", "it was not")
    expect(page.locator("#audit")).to_contain_text("it was not")
    assert [] == complaints


def test_three_readings_of_a_day_stand_side_by_side(page: Page, loop: Loop) -> None:
    heads = page.locator("#quality thead th")
    expect(heads).to_contain_text(["day", "role", "version", "predictions", "labels in"])
    assert ["estimate", "provisional", "final"] == heads.all_inner_texts()[-3:]
    final = page.locator("#quality tbody tr", has_text="default").locator("td").last
    expect(final).to_have_text(re.compile(r"^0\.\d{4} 0\.\d{4} to 0\.\d{4}$"))
    page.locator("#metric").select_option("kappa")
    expect(page.locator("#quality tbody tr", has_text="default").locator("td").last).to_have_text(
        re.compile(r"^(-?\d\.\d{4}|–)")
    )
    page.locator("#metric").select_option("log_loss")


def test_one_event_is_traced_from_its_id_to_its_outcome(page: Page, loop: Loop) -> None:
    page.get_by_label("Event id").fill(loop.events["transaction_id"][0].as_py())
    page.get_by_role("button", name="Trace").click()
    traced = page.locator("#traced")
    for part in (
        "Event: payments.transactions[",
        "Prediction by default: score",
        "Label: 0, final",
        "records searched.",
    ):
        expect(traced).to_contain_text(part, timeout=30_000)
    page.get_by_label("Event id").fill("no such event")
    page.get_by_role("button", name="Trace").click()
    expect(traced).to_contain_text("No topic knows no such event", timeout=30_000)


def test_dead_letter_is_inspected_and_replayed(page: Page, loop: Loop) -> None:
    from tailrace.backends.kafka import producer

    writer = producer(loop.settings)
    writer.produce("payments.transactions", b"<b>not json</b>", "x")
    assert 0 == writer.flush(10)
    letters = page.locator("#letters")
    expect(letters).to_contain_text("features", timeout=MINUTE_MS)
    letters.get_by_role("button").first.click()
    expect(page.locator("#letter pre")).to_have_text("<b>not json</b>")
    page.get_by_role("button", name="Close").click()
    page.locator("#reasons").get_by_role("button").first.click()
    answer(page, "to see it come back")
    # Nothing was mended: it is sent again, and comes back as a second letter.
    expect(page.locator("#dead-letters-figures")).to_contain_text(
        "2 records set aside, 1 sent again", timeout=MINUTE_MS
    )


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])
def test_page_is_accessible_and_fits(
    browser: Browser, loop: Loop, complaints: list[str], scheme: str, width: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    page = open_console(context.new_page(), loop, complaints)
    expect(page.locator("#models")).to_contain_text("champion")
    found = [v for v in Axe().run(page).response["violations"] if v["impact"] in ("serious", "critical")]
    assert [] == [(v["id"], [node["html"] for node in v["nodes"]][:3]) for v in found]
    assert width == page.evaluate("document.documentElement.scrollWidth")
    if (scheme, width) != ("light", 1280):
        shoot(page, f"console-{scheme}-{width}")
    assert [] == complaints
    context.close()


def test_everything_can_be_reached_and_done_by_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the panels")).to_be_focused()
    retrain = page.get_by_role("button", name="Retrain now")
    for _ in range(60):
        if retrain.evaluate("button => button === document.activeElement"):
            break
        page.keyboard.press("Tab")
    expect(retrain).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(retrain).to_be_focused()


def test_nobody_gets_in_without_a_token(browser: Browser, loop: Loop) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(loop.url)
    expect(page.locator("#status")).to_have_text("Not signed in")
    expect(page.locator("#main")).to_be_hidden()
    page.get_by_label("Token").fill("x" * 43)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#login [role=alert]")).to_contain_text("no valid token")
    page.get_by_label("Token").fill(loop.token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#flow li").first).to_be_visible()
    page.reload()
    expect(page.locator("#flow li").first).to_be_visible()
    context.close()


def test_silence_of_the_service_greys_the_figures_out(page: Page, browser: Browser) -> None:
    expect(page.locator("section.stale")).to_have_count(0)
    page.context.set_offline(True)
    page.evaluate("Date.now = (now => () => now() + 60000)(Date.now)")
    expect(page.locator("#status")).to_contain_text("stale", timeout=10_000)
    expect(page.locator("[data-panel=models]")).to_have_class(re.compile("stale"))


def shoot(page: Page, name: str) -> None:
    """A picture for the documentation, when a folder for it is named in SCREENSHOTS."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.jpg", type="jpeg", quality=40)
