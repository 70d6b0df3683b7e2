"""The docs and the program say the same."""

import re
from pathlib import Path

import pytest
import typer

from stkd_screen.cli import app

DOCS = Path(__file__).parents[1] / "docs"
GROUP = typer.main.get_command(app)
COMMANDS = sorted(GROUP.commands)


def parameters_of(command: str) -> list:
    """Of a command, or of all commands of a group such as bench."""
    group = GROUP.commands[command]
    inner = getattr(group, "commands", {}).values()
    return [*group.params, *(parameter for one in inner for parameter in one.params)]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_page_with_every_option(command):
    page = (DOCS / f"{command}.md").read_text(encoding="utf-8")
    for parameter in parameters_of(command):
        for option in parameter.opts + parameter.secondary_opts:
            if option.startswith("--"):
                assert re.search(rf"{re.escape(option)}(?![a-z-])", page), f"{option} is not in {command}.md"


@pytest.mark.parametrize("command", COMMANDS)
def test_no_page_names_an_option_that_does_not_exist(command):
    page = (DOCS / f"{command}.md").read_text(encoding="utf-8")
    parameters = [p for other in COMMANDS for p in parameters_of(other)]
    known = {option for p in parameters for option in p.opts + p.secondary_opts}
    for option in set(re.findall(r"--[a-z][a-z-]*", page)):
        assert option in known, f"{command}.md names {option}"


def test_the_readme_names_every_command():
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    for command in COMMANDS:
        assert f"stkd-screen {command}" in readme


def test_links_between_pages_work():
    for page in [DOCS.parent / "README.md", *DOCS.glob("*.md")]:
        lines = page.read_text(encoding="utf-8").splitlines()
        text = "\n".join(line for line in lines if not line.startswith("    "))
        prose = re.sub(r"`[^`\n]*`", "", text)  # C[C@H](N)O is no link
        for target in re.findall(r"\]\(([^)#:]+)[^):]*\)", prose):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
