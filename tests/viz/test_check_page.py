"""The page of a check: all of its contents is in sight, and a repair is called one."""

from boxel.data import collect_statistics, example_scenes
from boxel.data.issues import Issue
from boxel.viz import write_check_report


def test_contents_do_not_scroll_and_repairs_are_named(tmp_path):
    issues = [Issue("box-tiny", "annotation 7 is <tiny>.", repair="left out"), Issue("box-nan", "it is NaN.")]
    write_check_report(collect_statistics(example_scenes()), issues, tmp_path / "check.html")
    page = (tmp_path / "check.html").read_text()
    contents = page[page.index('<section id="contents">') : page.index('<section id="issues">')]
    assert "scroll" not in contents and "boxes only" in contents
    assert '&lt;tiny&gt;. <span class="more">Repair: left out</span></li>' in page
    assert page.count("Repair:") == 1
