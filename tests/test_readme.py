"""The Chinese README is in step with the English one: the same commands, code, tables and links in each section."""

import re

import pytest
from conftest import ROOT

ENGLISH, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
SECTIONS = r"^#{2,3} .*$"


def sections(text):
    return re.split(SECTIONS, text, flags=re.MULTILINE)


def test_both_have_the_same_sections_and_point_at_each_other():
    assert len(sections(ENGLISH)) == len(sections(CHINESE)) >= 10
    levels = [
        re.findall(r"^#+(?= )", re.sub(r"```.*?```", "", t, flags=re.DOTALL), re.MULTILINE) for t in (ENGLISH, CHINESE)
    ]
    assert levels[0] == levels[1]
    assert "(README.zh-CN.md)" in ENGLISH
    assert "(README.md)" in CHINESE


@pytest.mark.parametrize("number", range(len(sections(ENGLISH))))
def test_each_section_has_the_same_commands_code_and_links(number):
    english, chinese = sections(ENGLISH)[number], sections(CHINESE)[number]
    blocks = r"```.*?```"
    assert re.findall(blocks, chinese, re.DOTALL) == re.findall(blocks, english, re.DOTALL)
    english, chinese = (re.sub(blocks, "", text, flags=re.DOTALL) for text in (english, chinese))
    links = [sorted(set(re.findall(r"\]\((?!README)([^)]*)\)", text))) for text in (english, chinese)]
    assert links[0] == links[1]
    assert len(re.findall(r"^\|", chinese, re.MULTILINE)) == len(re.findall(r"^\|", english, re.MULTILINE))
    assert len(re.findall(r"^\* ", chinese, re.MULTILINE)) == len(re.findall(r"^\* ", english, re.MULTILINE))
    names = [set(re.findall(r"`([^`\n]+)`", text)) for text in (english, chinese)]
    assert names[0] == names[1]


def test_every_file_that_is_linked_is_there():
    for link in set(re.findall(r"\]\(([^)#:]+)\)", ENGLISH + CHINESE)):
        assert (ROOT / link).exists(), link
