"""The page of the benchmarks: every problem and every rival is drawn, on the right side of the line."""

import json
import shutil
import sys
from pathlib import Path

REPORT = Path(__file__).parents[1] / "benchmarks" / "report"
sys.path.insert(0, str(REPORT.parent))

import charts  # noqa: E402


def row(problem, ours, **times):
    return {"problem": problem, "median_s": {"ours": ours, **times}}


def test_ratios_are_above_one_where_ours_is_the_faster():
    rows = [row("a", 2.0, jacfwd=6.0, jacrev=4.0, asdex=1.0), row("b", 1.0, jacfwd=5.0, **{"by hand": 0.5})]
    assert charts.ratios(rows[0]) == {"jacfwd": 3.0, "jacrev": 2.0, "asdex": 0.5}
    assert [*charts.strips(rows).values()] == [[2.0, 5.0], [0.5], [0.5]]


def test_the_page_holds_all_problems_and_needs_no_network(tmp_path):
    for file in REPORT.glob("*.json"):
        shutil.copy(file, tmp_path)
    charts.write(tmp_path)
    page = (tmp_path / "index.html").read_text()
    report = json.loads((REPORT / "report.json").read_text())
    for r in report["rows"]:
        assert page.count(r["problem"]) >= 2  # in the chart and in the table
    for name in charts.COLOURS:
        assert name in page
    assert report["environment"]["date"] in page and report["environment"]["jax"] in page
    assert 'src="http' not in page and "@import" not in page and "<script" not in page
    assert (tmp_path / "figure.svg").read_text().count("<use") >= len(report["rows"])
