"""The demo's own promises."""

from __future__ import annotations

from tests.system.demo import Demo


def test_the_figures(demo: Demo) -> None:
    figures = demo.figures
    assert figures["accuracy"] >= 0.95
    assert figures["lost"] == 0
    assert figures["killed"]
    assert figures["images"] >= 3000
    direct, through = figures["direct_bytes"], figures["proxy_bytes"]
    assert direct / (direct + through) >= 0.99
    # Three lives answered, and the killed one's work went to others.
    assert 3 <= len(figures["share"]) <= 4
    assert sum(figures["share"].values()) == figures["images"]


def test_progress_and_the_curl_lines_are_shown(demo: Demo) -> None:
    for title in ("1  Train", "2  Start", "3  Stream", "4  The same"):
        assert title in demo.text
    assert demo.text.count("$ curl -s ") == 2
    assert '"results": [{' in demo.text
    assert "Traceback" not in demo.text


def test_no_process_is_left_behind(demo: Demo) -> None:
    assert demo.left_behind == []


def test_what_it_wrote(demo: Demo) -> None:
    assert len(demo.images) >= 300
    version = demo.model / "1"
    for name in ("saved_model.pb", "labels.txt", "report.json", "confusion.png"):
        assert (version / name).is_file()
