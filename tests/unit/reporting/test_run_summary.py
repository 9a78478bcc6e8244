"""A run in a few lines, safe to show whatever the data holds."""

from finetune.reporting import comparison_page, run_summary
from finetune.reporting.comparison_model import Comparison
from finetune.reporting.run_summary import EmbeddedPage
from finetune.reporting.seeds_report import SeedsSummary, Spread

EVIL = "<script>alert('x')</script>"


def test_the_link_leads_from_here_and_is_quoted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / 'runs/a "b" <c>'
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("")
    spread = Spread(values=[0.5, 0.7], mean=0.6, sd=0.1, low=0.5, high=0.7)
    summary = SeedsSummary(
        recipe="x", seeds=[0, 1], runs=["seed-0", "seed-1"], main=EVIL,
        validation={}, test={EVIL: spread, "loss": spread},
    )  # fmt: skip
    page = run_summary.seeds_html(summary, folder)
    assert 'href="runs/a%20%22b%22%20%3Cc%3E/report.html"' in page
    assert "<script>" not in page
    assert "0.6000" in page
    assert run_summary.describe_seeds(summary).endswith(
        "0.6000 ± 0.1000 (mean and standard deviation of 2 seeds)"
    )


def test_an_embedded_page_cannot_leave_its_frame():
    shown = EmbeddedPage(f'<p title="a">{EVIL}</p>', 200)._repr_html_()
    assert shown.count("<") == 2
    assert 'sandbox="allow-scripts allow-popups"' in shown


def test_a_comparison_escapes_the_names_of_folders():
    run = {
        "run": EVIL, "recipe": None, "model": "m", "accuracy": 0.5, "accuracy_interval": (0.4, 0.6),
        "f1_macro": 0.5, "f1_macro_interval": (0.4, 0.6), "ece": 0.1, "loss": float("nan"),
        "seconds": 1.0,
    }  # fmt: skip
    gap = {"difference": 0.1, "interval": (-0.1, 0.3)}
    pair = {
        "one": EVIL, "other": "b", "accuracy": gap, "f1_macro": gap, "monitor": "accuracy",
        "only_one_right": 1, "only_other_right": 2, "p": 0.5, "p_holm": 0.5, "both_right": 5,
        "both_wrong": 2, "gained": [], "lost": [EVIL], "labels": [], "worsened": [],
        "improved": [],
    }  # fmt: skip
    found = Comparison(
        rows=10, test="0" * 64, runs=[run, {**run, "run": "b"}], pairs=[pair], identity=[],
        settings=[{"key": "run.name", "values": [EVIL, "b"]}],
    )  # fmt: skip
    assert found.runs[0].loss is None
    assert "<script>" not in found._repr_html_()
    assert found.verdicts[0].startswith("No clear difference between b and ")
    assert EVIL in str(found)
    page = comparison_page.render_comparison(found)
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert") >= 4
