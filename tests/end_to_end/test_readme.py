"""What the README says of the code is so."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_line_of_the_textbook_table_is_in_the_code():
    quoted = re.findall(r"\| `(.+?)` \(\[(\w+\.py)\]\((finetune/\w+\.py)\)\)", README)
    assert len(quoted) >= 14
    for code, name, path in quoted:
        assert path == f"finetune/{name}"
        assert code in (ROOT / path).read_text(encoding="utf-8"), (code, path)


def test_every_link_leads_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert len(links) >= 18
    headings = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    anchors = {
        "#" + re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings
    }
    assert [link for link in links if link not in anchors and not (ROOT / link).exists()] == []


def test_the_quickstart_is_the_makefile_s():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "accelerate launch finetune/run.py recipes/bbc_news.yaml" in makefile
    assert "accelerate launch finetune/run.py recipes/bbc_news.yaml" in README
    assert README.index("make quickstart") < README.index("make test") < README.index("## ")


def test_the_layout_table_lists_every_module():
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    modules = sorted((ROOT / "finetune").glob("*.py"))
    assert len(modules) > 25
    assert [m.name for m in modules if m.name != "__init__.py" and f"`{m.name}`" not in table] == []
