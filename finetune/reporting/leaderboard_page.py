"""A leaderboard as one self-contained page, with links to the reports of its runs."""

from pathlib import Path

from finetune.reporting import html_report
from finetune.reporting.leaderboard_model import Leaderboard
from finetune.reporting.leaderboard_text import (
    describe_settings,
    describe_shared,
    explain_rank,
    title_group,
)
from finetune.reporting.number_formats import short_names


def render_leaderboard(board: Leaderboard, page: Path) -> str:
    """The page.

    Args:
        page: where it will be, from where its links lead.
    """
    folders = [run.run for group in board.groups for run in group.runs]
    folders += [other.run for other in board.others]
    links = {
        folder: html_report.relative_link(report, page.parent)
        for folder in folders
        if (report := Path(folder) / "report.html").is_file()
    }
    return (
        html_report.template_environment()
        .get_template("leaderboard.html")
        .render(
            board=board,
            runs=sum(len(group.runs) for group in board.groups),
            names=dict(zip(folders, short_names(folders, 60), strict=True)),
            links=links,
            title_group=title_group,
            describe_shared=describe_shared,
            explain_rank=explain_rank,
            describe_settings=describe_settings,
        )
    )
