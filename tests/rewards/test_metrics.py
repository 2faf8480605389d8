"""Metrics by name: values worked out by hand, missing instead of zero, the loud warning."""

import asyncio
import json
import threading
from dataclasses import replace

import pytest

from collabllm.rewards import Judge, MetricTools, MetricValue, register_metric
from collabllm.rewards.extraction import find_answer, find_boxed, find_code
from collabllm.rewards.metrics.answer import is_mathematical
from collabllm.rewards.metrics.math_process import MathProcesses
from collabllm.rewards.metrics.text import repeats_reply, signatures
from collabllm.rewards.registry import MetricMissingError, check_metrics, score_conversation
from collabllm.servers.client import OpenAIClient
from collabllm.tasks import Fact, Task
from tests.fake_server import FakeServer

PARTY = Task(
    "party",
    "Plan a party. It's a 6th birthday. There will be 12 guests.",
    "Plan for the 6th birthday, 12 guests.",
    opening="Plan a party.",
    facts=(
        Fact("age", "It's a 6th birthday.", ("old", "age"), "6th"),
        Fact("guests", "There will be 12 guests.", ("many", "guests"), "12"),
    ),
)


def talk(*texts):
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


def score(name, conversation, task=PARTY, **tools):
    return asyncio.run(score_conversation(conversation, task, [name], MetricTools(**tools)))[name]


def reference(text, **metadata):
    return Task("t", "goal", text, metadata=metadata)


def test_facts_are_counted_when_the_user_tells_them_after_the_opening():
    asked_one = talk("Plan a party.", "How old?", "It's a 6th birthday.", "Done.")
    asked_both = talk("Plan a party.", "Age and guests?", "It's a 6th birthday. 12 guests.", "Ok")
    guessed = talk("Plan a party.", "For 12 guests of age 6th then.", "And now?", "Done.")
    half_open = talk("Plan a party for 12.", "How old?", "It's a 6th birthday.")

    assert score("facts_elicited", asked_one).value == 0.5
    assert score("facts_elicited", asked_both).value == 1.0
    assert score("facts_elicited", guessed).value == 0.0
    assert score("facts_elicited", half_open).value == 1.0


def test_facts_do_not_apply_to_a_complete_opening_and_that_is_no_failure():
    complete = talk(PARTY.single_turn_prompt, "Done.")

    value = score("facts_elicited", complete)

    assert (value.value, value.applicable) == (None, False)
    assert "every fact" in value.reason


def test_over_asking_counts_questions_that_bring_nothing_new():
    good = talk("Plan a party.", "How old? How many guests?", "...")
    half = talk("Plan a party.", "How old? Which colour?", "It's a 6th birthday.")
    again = talk("Plan a party.", "How old?", "It's a 6th birthday.", "What age was it?")
    twice = talk("Plan a party.", "How old? Which age?")
    silent = talk("Plan a party.", "Here is a plan.")
    complete = talk(PARTY.single_turn_prompt, "How old?")

    values = [score("over_asking", c).value for c in (good, half, again, twice, silent, complete)]

    assert values == [0.0, 0.5, 0.5, 0.5, 0.0, 1.0]


def test_a_question_is_needless_for_sure_where_the_opening_says_everything():
    request = "At what degree does water boil?"
    clear = Task("boiling", request, opening=request)
    vague = talk("Tell me something of water.", "What do you want to know?")
    asked, done = talk(request, "Why do you ask?"), talk(request, "At 100 °C.")
    told = talk(PARTY.single_turn_prompt, "Done. Which colour do you like?")
    offered = talk(PARTY.single_turn_prompt, "Done. Anything else?")

    assert [score("asks_needlessly", c, clear).value for c in (asked, done)] == [1.0, 0.0]
    assert [score("asks_needlessly", c).value for c in (told, offered)] == [1.0, 0.0]
    assert score("asks_needlessly", talk("Plan a party for 12.", "How old?")).applicable is False
    assert score("asks_needlessly", vague, clear).applicable is False  # whatever the task opens by
    assert score("asks_needlessly", asked, replace(clear, opening="Water?")).value == 1.0


def test_questions_are_the_result_where_the_reference_has_some():
    quiz = replace(PARTY, single_turn_completion="1. How old is Ann?\n2. How tall is Bob?")
    reply = talk(PARTY.single_turn_prompt, "1. How old is Eve?")

    for name in ("over_asking", "asks_needlessly"):
        assert score(name, reply, quiz).applicable is False
        assert score(name, reply).value == 1.0


def test_repetition_is_the_share_of_runs_of_four_words_used_before():
    assert score("repetition", talk("x", "a b c d e")).value == 0.0
    assert score("repetition", talk("x", "a b c d", "y", "a b c d e")).value == pytest.approx(1 / 3)
    assert score("repetition", talk("x", "too short")).value == 0.0


def test_repetition_takes_letters_for_words_where_a_script_has_no_spaces():
    asked = "\u8bf7\u95ee\u51e0\u4f4d"  # four letters, one run
    again = f"{asked}\u5ba2"

    assert score("repetition", talk("x", again)).value == 0.0
    assert score("repetition", talk("x", asked, "y", again)).value == pytest.approx(1 / 3)
    assert repeats_reply(asked, talk("x", asked))
    assert not repeats_reply(asked, talk("x", again))
    assert not repeats_reply(asked[:3], talk("x", asked[:3]))


def test_token_amount_counts_assistant_messages_only():
    conversation = talk("one two three", "four five", "six", "seven")

    value = score("token_amount", conversation, count_tokens=lambda text: len(text.split()))

    assert value.value == 3.0


def test_bleu_is_word_level_and_names_its_settings():
    same = score("bleu", talk("x", "the cat sat on the mat"), reference("the cat sat on the mat"))
    # Letters in common, no word in common: character level would score high.
    other = score("bleu", talk("x", "act tas no eth tam"), reference("cat sat on the mat"))

    assert same.value == pytest.approx(1.0)
    assert other.value == 0.0
    assert score("chrf", talk("x", "cats"), reference("cats")).value == pytest.approx(1.0)
    assert "tok:13a" in signatures()["bleu"]


@pytest.mark.parametrize(
    ("expected", "reply", "value"),
    [
        ("\\frac{1}{2}", "So the answer is $0.5$.", 1.0),
        ("The result is \\boxed{x^2+1}.", "We get \\boxed{1+x^2}", 1.0),
        ("42", "I think it is \\boxed{41}.", 0.0),
        ("Blender", "The answer is a blender!", 1.0),
        ("Blender", "The answer is toaster.", 0.0),
        ("Blender", "It must be the Blender, right?", 1.0),
        ("Blender", "It blends.", 0.0),
        ("Blender", "It is a blenders' club.", 0.0),
        ("Blender", "It is not a blender.", 0.0),
        ("Blender", "It isn't the blender but the toaster.", 0.0),
        ("Blender", "A toaster, rather than a blender.", 0.0),
        ("Blender", "A toaster, a blender, a mixer, who knows.", 0.0),
        ("Blender", "Either a toaster or a blender.", 0.0),
        ("Blender", "Is it a toaster? Is it a blender? Is it a mixer?", 0.0),
        ("Blender", "Maybe a toaster. Perhaps a blender.", 0.0),
        ("Blender", "Is it a blender?", 1.0),
        ("Blender", "It is a toaster. It is a blender. It is a mixer.", 0.0),
        ("Blender", "- Toaster\n- Blender\n- Mixer", 0.0),
        ("Blender", "Toaster / blender", 0.0),
        ("Blender", "It is a tool. It is a blender. It is really useful. Enjoy!", 1.0),
        ("Blender", "Blender.\nEnjoy!", 1.0),
        ("Blender", "It has no handle. It is a blender.", 1.0),
        ("not a number", "The value is not a number.", 1.0),
        ("red, white and blue", "Its colours are red, white and blue.", 1.0),
        ("42", "The answer is 41 or 42.", 0.0),
        ("42", "\\boxed{41} or \\boxed{42} or \\boxed{43}", 0.0),
    ],
)
def test_accuracy_compares_mathematics_as_mathematics_and_words_as_words(expected, reply, value):
    assert score("accuracy", talk("q", reply), reference(expected)).value == value


@pytest.mark.parametrize(
    ("expected", "reply", "value"),
    [
        ("no", "No, he did not.", 1.0),
        ("no", "No he did not.", 1.0),
        ("no", "Let me see. No, he did not.", 1.0),
        ("no", "There is no doubt that he did.", 0.0),
        ("no", "No doubt he did.", 0.0),
        ("no", "He has no dog, so yes.", 0.0),
        ("no", "Answer: **No**, it is not.", 1.0),
        ("yes", "Yes, he did not lie.", 1.0),
        ("yes", "No, he said yes.", 0.0),
        ("yes", "The answer is yes, because it is even.", 1.0),
        ("yes", "No problem! The answer is yes.", 1.0),
        ("yes", "The answer is clear. Yes, he did.", 1.0),
        ("yes", "Who knows?", 0.0),
        ("A", "The correct option is A.", 1.0),
        ("A", "The answer is A.", 1.0),
        ("A", "A: Nitrofurantoin", 1.0),
        ("A", "A banana is a fruit.", 0.0),
        ("A", "The correct option is not A.", 0.0),
        ("A", "It is A. It is B. It is C.", 0.0),
        ("A", "Answer: -", 0.0),
        ("A", "The answer is a duck.", 0.0),
        ("A", "The answer is A: Nitrofurantoin.", 1.0),
        ("B", "The answer is A: Nitrofurantoin.", 0.0),
        ("B", "The correct option is B.", 1.0),
        ("Nitrofurantoin", "The answer is A: Nitrofurantoin.", 1.0),
        ("Nitrofurantoin", "The answer is B: Nitrofurantoin.", 1.0),
        ("Nitrofurantoin", "Answer: (C) Nitrofurantoin", 1.0),
        ("Nitrofurantoin", "The answer is B: Penicillin.", 0.0),
        ("Vitamin C", "The answer is Vitamin C.", 1.0),
        ("Paris", "The answer is Paris, the capital of France.", 1.0),
        ("Paris", "The answer is Lyon, because Paris is too big.", 0.0),
        ("Paris", "The answer is Paris, Lyon or Nice.", 0.0),
        ("red", "The answer is red, white and blue.", 0.0),
        ("Paris", "It is Paris. The result is that you can visit it.", 1.0),
    ],
)
def test_accuracy_reads_yes_and_no_options_and_reasons(expected, reply, value):
    assert score("accuracy", talk("q", reply), reference(expected)).value == value


@pytest.mark.parametrize(
    ("expected", "reply", "value"),
    [
        ("He has 9 x 2 = <<9*2=18>>18 eggs.\n#### 18", "He has 18 eggs.", 1.0),
        ("He has 9 x 2 = <<9*2=18>>18 eggs.\n#### 18", "The answer is 9.", 0.0),
        ("#### 1,200", "That makes $1200.", 1.0),
        ("#### Tea\nTea is warm.", "The answer is: Tea. Tea is warm.", 0.0),
        ("3.5 hours", "It takes 3.5 hours.", 1.0),
        ("3.5 hours", "The answer is 3.5 hours.", 1.0),
        ("5 hours", "It takes 3.5 hours.", 0.0),
        ("5 degrees", "It is -5 degrees.", 0.0),
        ("1,200 euros", "It costs 1200 euros.", 1.0),
        ("1200 euros", "It costs 1,200 euros.", 1.0),
        ("200 euros", "It costs 1,200 euros.", 0.0),
        ("10:30", "The train leaves at 10:30.", 1.0),
        ("10:30 am", "The train leaves at 10:45 am.", 0.0),
        ("2024-05-01", "It is on 2024-05-01.", 1.0),
        ("2024-05-01", "It is on 2024-04-02.", 0.0),
        ("x^2+1", "The answer is x^2 + 1.", 1.0),
        ("x^2+1", "The answer is x^2 + 2.", 0.0),
        ("(1,2)", "The answer is (1, 2).", 1.0),
        ("[1, 2, 3]", "The answer is [1, 2, 3].", 1.0),
        ("[1, 2, 3]", "The answer is [1, 2, 4].", 0.0),
    ],
)
def test_accuracy_reads_solutions_units_dates_and_formulas_in_sentences(expected, reply, value):
    assert score("accuracy", talk("q", reply), reference(expected)).value == value


@pytest.mark.parametrize(
    ("expected", "reply", "value"),
    [
        ("东京", "首都是东京。", 1.0),
        ("东京", "首都是北京。", 0.0),
        ("东京", "首都不是东京。", 0.0),
        ("东京", "是东京还是大阪。", 0.0),
        ("东京", "首都是东京。首都是大阪。", 0.0),
        ("東京", "日本の首都は東京です。", 1.0),
        ("東京", "首都は東京ではありません。", 0.0),
        ("是", "是的。", 1.0),
        ("是", "不是。", 0.0),
        ("กรุงเทพ", "เมืองหลวงคือกรุงเทพ", 1.0),
        ("Köln", "Es ist Köln.", 1.0),
        ("القاهرة", "عاصمة مصر هي القاهرة.", 1.0),
    ],
)
def test_accuracy_finds_words_between_which_no_spaces_stand(expected, reply, value):
    assert score("accuracy", talk("q", reply), reference(expected)).value == value


def test_saying_that_one_is_sure_takes_no_answer_back():
    sure = talk("Did he?", "No, he did not.", "sure?", "Yes, I am sure.")
    changed = talk("Did he?", "No, he did not.", "sure?", "Yes, he did, after all.")

    assert score("accuracy", sure, reference("no")).value == 1.0
    assert score("accuracy", changed, reference("No")).value == 0.0


def test_the_answer_is_found_in_the_whole_conversation():
    sums = talk("6 x 7?", "It is \\boxed{42}.", "thanks", "You are welcome!")
    unmarked = talk("6 x 7?", "That makes 42.", "thanks", "You are welcome!")
    result = talk("6 x 7?", "The result is 42.", "thanks", "It took 3 steps.")
    corrected = talk("6 x 7?", "It is \\boxed{42}.", "sure?", "Sorry, it is \\boxed{43}.")
    words = talk("What is it?", "It is a blender.", "thanks", "Glad that I could help!")
    guesses = talk(
        "What is it?", "It is a blender.", "hm", "It is an oven.", "hm", "It is a mixer."
    )
    taken_back = talk("What is it?", "It is a blender.", "sure?", "No, it is not a blender.")

    assert score("accuracy", sums, reference("42")).value == 1.0
    assert score("accuracy", unmarked, reference("42")).value == 1.0
    assert score("accuracy", result, reference("42")).value == 1.0
    assert score("accuracy", corrected, reference("42")).value == 0.0
    assert score("accuracy", words, reference("Blender")).value == 1.0
    assert score("accuracy", taken_back, reference("Blender")).value == 0.0
    assert score("accuracy", guesses, reference("Blender")).value == 0.0


def test_an_answer_that_cannot_be_compared_is_wrong_and_no_missing_value(monkeypatch, tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import json, sys\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    expected, answer = json.loads(line)\n"
        "    broken = '10^{10' in answer or expected == 'unreadable'\n"
        "    print('null' if broken else 'true', flush=True)\n"
    )
    monkeypatch.setattr("collabllm.rewards.metrics.math_process._WORKER", worker)
    monkeypatch.setattr(
        "collabllm.rewards.metrics.answer.math_processes", lambda: MathProcesses(1, limit_s=30)
    )
    endless = talk("q", "\\boxed{10^{10^{10}}}")

    assert score("accuracy", endless, reference("42")).value == 0.0
    assert score("accuracy", endless, reference("\\boxed{unreadable}")).value is None


def test_a_comparison_that_hangs_is_missing_and_the_next_one_works(monkeypatch, tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import json, sys, time\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    if 'hang' in line: time.sleep(60)\n"
        "    print(json.dumps(True), flush=True)\n"
    )
    monkeypatch.setattr("collabllm.rewards.metrics.math_process._WORKER", worker)
    processes = MathProcesses(2, limit_s=8.0)
    outcomes = []

    def verify(reference):
        try:
            outcomes.append(processes.verify(reference, "x"))
        except MetricMissingError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=verify, args=(text,)) for text in ("hang", "1", "2", "3")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    verify("4")

    assert sorted(map(str, outcomes)) == [
        *["True"] * 4,
        "math-verify failed, or took longer than 8 s",
    ]


def test_what_counts_as_mathematical():
    assert is_mathematical("3/4")
    assert is_mathematical("\\sqrt{2}")
    assert is_mathematical("x^2")
    assert not is_mathematical("Room 12 on Monday")
    assert not is_mathematical("Blender")


def test_artefacts_are_found_by_rule():
    text = "First:\n```python\na = 1\n```\nBetter:\n```\nb = 2\n```\nEnjoy."

    assert find_code(text) == "b = 2"
    assert find_code("no code") is None
    assert find_boxed("\\boxed{1} and \\boxed{\\frac{1}{2}}") == "\\frac{1}{2}"
    assert find_answer("The answer is 12. Bye") == "12"
    assert find_answer("The result is $x^2$.") == "x^2"
    assert find_answer("The result is that you can visit it.") is None
    assert find_answer("Who knows?") is None


def judge_tools(server):
    return {"judge": Judge(OpenAIClient(server.url, max_retries=0), "j")}


def test_a_judge_rates_on_three_anchors():
    with FakeServer(lambda body: 'Sure: {"why": "fine", "score": 0.5}') as server:
        value = score("interactivity", talk("a", "b"), **judge_tools(server))

    assert value == MetricValue(0.5)
    assert server.requests[0]["temperature"] == 0.0
    assert "three points" in server.requests[0]["messages"][0]["content"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ('{"score": 0.7}', "no score of 0 or 0.5 or 1, 3 times"),
        ('{"score": "great"}', "no score of"),
        ("no idea", "no score of"),
    ],
)
def test_a_judge_that_fails_is_missing_and_not_zero(answer, reason):
    with FakeServer(lambda body: answer) as server:
        value = score("interactivity", talk("a", "b"), **judge_tools(server))

    assert value.value is None
    assert value.applicable
    assert reason in value.reason


def test_a_dead_judge_is_missing_too():
    tools = MetricTools(judge=Judge(OpenAIClient("http://127.0.0.1:9/v1", max_retries=0), "j"))

    values = asyncio.run(score_conversation(talk("a", "b"), PARTY, ["interactivity"], tools))

    assert values["interactivity"].value is None
    assert "ServerError" in values["interactivity"].reason


def test_an_arrow_scores_the_artefact_that_the_judge_copied_out():
    task = reference("Dear Ann, thanks.")
    conversation = talk("write", "Here: Dear Ann, thanks.", "nice", "You are welcome, bye!")
    with FakeServer(lambda body: json.dumps({"artefact": "Dear Ann, thanks."})) as server:
        extracted = score("document->bleu", conversation, task, **judge_tools(server))
    plain = score("bleu", conversation, task)

    assert extracted.value == pytest.approx(1.0)
    assert plain.value < 0.1
    assert "the document that the user wants" in server.requests[0]["messages"][0]["content"]


def test_code_and_answers_are_extracted_without_a_judge_where_a_rule_finds_them():
    conversation = talk("q", "The answer is 7.", "sure?", "Yes, I am.")

    assert score("answer->accuracy", conversation, reference("7")).value == 1.0
    assert score("answer->accuracy", talk("q", "Who knows?"), reference("7")).value == 0.0
    assert score("code->bleu", talk("q", "I cannot."), reference("x = 1")).value == 0.0


def test_where_the_judge_finds_nothing_to_copy_the_value_is_that_of_an_empty_text():
    with FakeServer(lambda body: '{"artefact": ""}') as server:
        for name in ("document->bleu", "document->chrf", "answer->accuracy", "code->accuracy"):
            value = score(name, talk("q", "No."), reference("Dear Ann."), **judge_tools(server))
            assert value.value == 0.0, name


def test_a_judged_accuracy_sees_goal_reference_and_reply():
    with FakeServer(lambda body: '{"score": 1}') as server:
        value = score("accuracy_judged", talk("q", "seven"), reference("7"), **judge_tools(server))

    assert value.value == 1.0
    assert all(part in server.requests[0]["messages"][0]["content"] for part in ("goal", "seven"))


def test_unknown_metrics_and_missing_judges_are_refused_before_a_run():
    tools = MetricTools(count_tokens=len)

    with pytest.raises(ValueError, match="did you mean 'bleu'"):
        check_metrics(["bluu"], tools)
    with pytest.raises(ValueError, match="extractor 'documnt'; did you mean 'document'"):
        check_metrics(["documnt->bleu"], tools)
    with pytest.raises(ValueError, match="needs a judge: give --judge_model"):
        check_metrics(["interactivity"], tools)
    with pytest.raises(ValueError, match="needs the assistant's tokenizer"):
        check_metrics(["token_amount"], MetricTools())


def test_a_metric_of_ones_own_is_found_by_its_name():
    async def shouting(conversation, task, tools):
        return float(conversation[-1]["content"].isupper())

    register_metric("shouting", shouting)

    assert score("shouting", talk("a", "OH NO")).value == 1.0
