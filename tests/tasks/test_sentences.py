"""Where a sentence ends, in English as before and in Chinese with and without spaces."""

import pytest

from hf_llm.tasks.sentences import first_sentences, sentences


@pytest.mark.parametrize(
    "text",
    [
        "本文研究了流场的演化规律.|结果表明,压力增加了3.5倍.|结论可靠.",
        "经实验验证．|结果提高３．５％．|方法可行。",
        "总DDDs的88.46%.|DDDs排序列前10位.|差异显著(P<0.05).|结论成立.",
        "采用MATLAB.|仿真结果良好!|真的吗?|是的.",
        "他说“等一等.”|然后走了.|“好!”|大家说.",
        '提出"三品"论.|"天命"论有价值.|他说"等一等."|本文考察它.',
        "见图3.|于2008年完成.|3年后(见表1).|【方法】回顾性分析.",
        "道教的仙界是美丽的。|这个理想是永恒的！|对吗？”|对｡|好",
    ],
)
def test_chinese_sentences_end_without_a_space(text):
    assert sentences(text.replace("|", "")) == text.split("|")


@pytest.mark.parametrize(
    "text",
    [
        "活性艳蓝(C.I.B-19)的性能好",
        "如Fig. 3所示,效率为95.8%",
        "Li et al.的方法与Dr.王的方法,以及sp.的分类",
        "访问www.example.com/?q=1或中国.cn,基于.NET平台和Node.js",
        "方法:1.对照组,2.实验组;A.优点,B.缺点",
        "方法: 1. 对照组, 2. 实验组",
        "U.S.市场与 J.王的版本2.0时代",
        "效率......很高,他走了……然后回来",
        "效率很高.",
    ],
)
def test_chinese_numbers_abbreviations_and_addresses_are_not_cut(text):
    assert sentences(text) == [text]


@pytest.mark.parametrize(
    "text",
    [
        "We use e.g. cats (Li et al. 2017).|v1.5 is old?|Yes.|It costs 3.5 dollars at www.example.com.",
        "No space here.So it stays.|See Fig. 3 (a.b).|1.|Introduction!",
        '"Dogs, too!"|they say.|Wait… what?|The end',
    ],
)
def test_english_ends_a_sentence_with_a_space(text):
    assert sentences(text.replace("|", " ")) == text.split("|")


def test_the_first_sentence_of_a_chinese_abstract_is_not_the_whole():
    assert first_sentences("目的:了解应用情况.方法:回顾性分析.结果:占64.18%.", 1) == "目的:了解应用情况."
