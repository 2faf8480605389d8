"""The answer's sentence: what is shown, what cannot be told, and never more."""

from collabllm.evaluation.report.answer import Comparison, Outcome, to_sentence

SAMPLE = "60 tasks in 12 domains"


def need(*found):
    return Outcome("facts_elicited", "", found)


def needless(*found):
    return Outcome("first_reply_asks", "where nothing is missing", found)


def sft(mean, low, high, p_value):
    return Comparison("SFT", mean, low, high, p_value)


def test_a_shown_difference_and_one_that_cannot_be_told():
    outcomes = [need(sft(0.21, 0.12, 0.30, 0.001)), needless(sft(0.02, -0.05, 0.09, 0.6))]

    assert to_sentence(outcomes, "base", SAMPLE) == (
        "SFT elicits 0.21 more of the needed facts than base [0.12, 0.30], but these tasks cannot "
        "tell SFT from base in how often the first reply asks where nothing is missing (+0.02 "
        "[\u22120.05, 0.09]); 60 tasks in 12 domains."
    )


def test_a_loss_is_said_as_plainly():
    assert to_sentence([need(sft(-0.3, -0.4, -0.2, 0.01))], "base", SAMPLE) == (
        "SFT elicits 0.30 less of the needed facts than base [0.20, 0.40]; 60 tasks in 12 domains."
    )


def test_an_interval_without_zero_is_no_claim_when_the_corrected_p_is_not_small():
    sentence = to_sentence([need(sft(0.2, 0.01, 0.39, 0.05))], "base", SAMPLE)

    assert sentence.startswith("These tasks cannot tell SFT from base in the needed facts")


def test_too_few_tasks_for_a_test_claim_nothing():
    sentence = to_sentence([need(sft(0.9, None, None, None))], "base", "3 tasks")

    assert sentence == (
        "These tasks cannot tell SFT from base in the needed facts elicited (+0.90); 3 tasks."
    )


def test_a_difference_that_is_no_number_claims_nothing():
    assert "cannot tell" in to_sentence([need(sft(0.1, 0, 0, float("nan")))], "base", SAMPLE)


def test_several_arms_are_told_apart():
    weak = Comparison("prompted", 0.01, -0.1, 0.1, 1.0)
    strong = Comparison("DPO", 0.31, 0.2, 0.4, 0.001)
    outcomes = [
        need(weak, sft(0.21, 0.12, 0.3, 0.001), strong),
        needless(weak, sft(-0.2, -0.3, -0.1, 0.01), strong),
    ]

    assert to_sentence(outcomes, "base", SAMPLE) == (
        "SFT (+0.21) and DPO (+0.31) elicit more of the needed facts than base, and DPO asks 0.31 "
        "more often than base where nothing is missing [0.20, 0.40], and SFT asks 0.20 less often "
        "than base where nothing is missing [0.10, 0.30], but these tasks cannot tell prompted "
        "from base in the needed facts elicited (+0.01 [\u22120.10, 0.10]) or how often the first "
        "reply asks where nothing is missing (+0.01 [\u22120.10, 0.10]); 60 tasks in 12 domains."
    )


def test_a_difference_below_a_hundredth_is_told_with_the_digits_that_tell_it():
    outcome = Outcome("m", "", [sft(0.0041, 0.0031, 0.0052, 0.001)])
    unclear = Outcome("m", "", [sft(-0.0001, -0.0003, 0.0001, 0.6)])

    assert "SFT scores 0.004 higher in m than base [0.003, 0.005];" in to_sentence(
        [outcome], "base", SAMPLE
    )
    assert "(\u22120.0001 [\u22120.0003, 0.0001])" in to_sentence([unclear], "base", SAMPLE)


def test_an_outcome_without_a_value_is_named():
    sentence = to_sentence([need(sft(0.21, 0.12, 0.30, 0.001)), needless()], "base", SAMPLE)

    assert sentence == (
        "SFT elicits 0.21 more of the needed facts than base [0.12, 0.30]; how often the first "
        "reply asks where nothing is missing has no value; 60 tasks in 12 domains."
    )


def test_needless_questions_are_a_share():
    found = [Outcome("over_asking", "", [sft(-0.2, -0.3, -0.1, 0.01)])]

    assert to_sentence(found, "base", SAMPLE).startswith(
        "SFT has 0.20 less of all questions needless than base [0.10, 0.30]"
    )


def test_other_metrics_are_named_and_one_arm_is_compared_with_nothing():
    outcome = Outcome("pass_rate", "", [sft(0.1, 0.05, 0.15, 0.01)])

    assert to_sentence([outcome], "base", SAMPLE).startswith("SFT scores 0.10 higher in pass rate")
    assert to_sentence([need()], "base", SAMPLE) == (
        "Nothing was compared with base; 60 tasks in 12 domains."
    )
