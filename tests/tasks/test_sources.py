"""Tasks from other people's datasets, on small files of the same shape."""

import json

import pytest
from datasets import Dataset, DatasetDict

from collabllm.tasks import load_tasks
from collabllm.tasks.matching import facts_told
from collabllm.tasks.settings import TaskSettings

MATH = [
    {"problem": "1+1?", "level": "Level 1", "type": "Algebra", "solution": "\\boxed{2}"},
    {"problem": "hard?", "level": "Level 5", "type": "Algebra", "solution": "So \\boxed{7}."},
]
BIGCODEBENCH = [
    {
        "task_id": "BigCodeBench/0",
        "complete_prompt": "def task_func():",
        "instruct_prompt": "Write a function.",
        "canonical_solution": "    return 1",
        "code_prompt": "def task_func():",
        "test": "class TestCases: ...",
        "entry_point": "task_func",
        "libs": "[]",
    }
]
MEDIUM = [{"title": "On Tea", "text": "Tea is warm.", "url": "u", "authors": "[]", "tags": "[]"}]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_math_gives_its_hardest_level(tmp_path):
    (task,) = load_tasks(write(tmp_path / "math.jsonl", MATH))

    assert (task.single_turn_prompt, task.single_turn_completion) == ("hard?", "So \\boxed{7}.")
    assert task.metadata == {"type": "Algebra", "level": "Level 5"}


@pytest.mark.parametrize(
    ("level", "is_taken"),
    [(5, True), (5.0, True), ("5", True), ("Level 5", True), (None, True), (4, False)],
)
def test_a_level_may_be_a_number(tmp_path, level, is_taken):
    rows = [MATH[1], {"problem": "harder?", "solution": "8", "level": level}]

    assert (len(load_tasks(write(tmp_path / "math.jsonl", rows))) == 2) is is_taken


def test_bigcodebench_brings_its_tests(tmp_path):
    (task,) = load_tasks(write(tmp_path / "code.jsonl", BIGCODEBENCH))

    assert task.task_id == "BigCodeBench/0"
    assert task.single_turn_completion == "def task_func():\n    return 1"
    assert task.metadata == {
        "test": "class TestCases: ...",
        "entry_point": "task_func",
        "libs": "[]",
    }


def test_medium_articles_are_references_of_documents(tmp_path):
    (task,) = load_tasks(write(tmp_path / "medium.jsonl", MEDIUM))

    assert task.single_turn_completion == "Tea is warm."
    assert "On Tea" in task.single_turn_prompt


def test_saved_folders_and_parquet_files_load_and_the_limit_stops_early(tmp_path):
    rows = [{"single_turn_prompt": f"goal {i}"} for i in range(9)]
    Dataset.from_list(rows).to_parquet(tmp_path / "t.parquet")
    DatasetDict({"test": Dataset.from_list(rows)}).save_to_disk(tmp_path / "saved")

    assert len(load_tasks(tmp_path / "t.parquet", 4)) == 4
    assert len(load_tasks(tmp_path / "saved", split="test")) == 9


def test_paths_that_hold_no_tasks_are_refused_as_those_of_datasets_are(tmp_path):
    (tmp_path / "tasks.csv").write_text("single_turn_prompt\nx\n")

    for path, kind, text in (
        (tmp_path / "tasks.csv", ValueError, "unknown file type; use .jsonl, .json or .parquet"),
        (tmp_path / "no", FileNotFoundError, "there is no such file or folder"),
        (tmp_path, FileNotFoundError, "there is no train.jsonl, .json or .parquet in this folder"),
    ):
        with pytest.raises(kind, match=text):
            load_tasks(path)


def test_a_column_map_names_the_columns_of_any_dataset(tmp_path):
    file = write(tmp_path / "qa.jsonl", [{"question": "Why?", "answer": "Because."}])
    columns = {"single_turn_prompt": "question", "single_turn_completion": "answer"}

    (task,) = load_tasks(file, columns=columns)

    assert (task.single_turn_prompt, task.single_turn_completion) == ("Why?", "Because.")
    with pytest.raises(ValueError, match="has no column q; it has question, answer"):
        load_tasks(file, columns={"single_turn_prompt": "q"})
    with pytest.raises(ValueError, match=r"--task_columns: a task has no column completion; it"):
        load_tasks(file, columns={"single_turn_prompt": "question", "completion": "answer"})
    with pytest.raises(ValueError, match=r"row 1: 'single_turn_prompt' must be|line 1: 'single"):
        load_tasks(file)


IN3 = [
    {
        "category": "Travel",
        "task": "Plan a trip to Paris.",
        "vague": True,
        "missing_details": [
            {
                "description": "Budget",
                "importance": "3",
                "inquiry": "What is your budget?",
                "options": ["small", "large"],
            },
            {
                "description": "Length",
                "importance": "1",
                "inquiry": "How long?",
                "options": ["week"],
            },
        ],
    },
    {"category": "Facts", "task": "Who wrote Faust?", "vague": False, "missing_details": []},
]


def test_in3_details_are_facts_and_clear_rows_have_none(tmp_path):
    vague, clear = load_tasks(write(tmp_path / "in3.jsonl", IN3))

    assert vague.opening == "Plan a trip to Paris."
    assert [(fact.name, fact.weight) for fact in vague.facts] == [("Budget", 3.0), ("Length", 1.0)]
    assert vague.facts[0].value in ("small", "large")
    assert vague.facts[1].answer == "Length: week."
    assert (clear.facts, clear.opening) == ((), clear.single_turn_prompt)
    assert load_tasks(tmp_path / "in3.jsonl")[0] == vague


def test_the_details_of_a_clear_in3_row_are_not_read(tmp_path):
    rows = [{"task": f"Who? {d}", "vague": False, "missing_details": d} for d in ("", "-")]

    tasks = load_tasks(write(tmp_path / "in3.jsonl", rows))

    assert [task.facts for task in tasks] == [(), ()]


@pytest.mark.parametrize(
    ("options", "answer", "value"),
    [
        (["No preference"], "Budget: No preference.", ""),
        (["Any airline"], "Budget: Any airline.", ""),
        (["Northern Italy"], "Budget: Northern Italy.", "Northern Italy"),
        (["Fruit (e.g., apples, pears)"], "Budget: Fruit (e.g., apples, pears).", "Fruit"),
        (["size (e.g.", " S", " M)"], "Budget: size (e.g., S, M).", "size"),
        ([" medium"], "Budget: medium.", "medium"),
        (["$5", "000 a year", " $5", "000 a year"], "Budget: $5,000 a year.", "$5,000 a year"),
        (["100", "100"], "Budget: 100.", "100"),
        ([None, " ", 7], "Budget: 7.", "7"),
    ],
)
def test_in3_options_are_told_whole_and_no_wish_is_no_value(tmp_path, options, answer, value):
    row = {**IN3[0], "missing_details": [{"description": "Budget", "options": options}]}

    (task,) = load_tasks(write(tmp_path / "in3.jsonl", [row]))

    assert (task.facts[0].answer, task.facts[0].value) == (answer, value)


@pytest.mark.parametrize(
    ("options", "question"),
    [
        (["(e.g., $1", "000)", " none"], "(e.g., $1,000), none"),
        (["Room 1", " 2", "101 Main St"], "Room 1, 2, 101 Main St"),
        (["$5", "000 USD", " $1", "000km"], "$5,000 USD, $1,000km"),
    ],
)
def test_in3_options_are_joined_at_the_comma_of_a_thousand_alone(tmp_path, options, question):
    row = {**IN3[0], "missing_details": [{"description": "Budget", "options": options}]}

    (task,) = load_tasks(write(tmp_path / "in3.jsonl", [row]))

    assert task.facts[0].question == question


def test_intention_gym_has_no_flag_and_an_id(tmp_path):
    vague, clear = (
        {"id": idx, "task": row["task"], "missing_details": row["missing_details"]}
        for idx, row in enumerate(IN3)
    )

    vague, clear = load_tasks(write(tmp_path / "gym.jsonl", [vague, clear]))

    assert [fact.name for fact in vague.facts] == ["Budget", "Length"]
    assert vague.metadata["vague"]
    assert (clear.task_id, clear.facts, clear.opening) == ("1", (), "Who wrote Faust?")


def test_rows_that_tell_nothing_of_asking_are_left_out_with_a_word(tmp_path, caplog):
    rows = [*IN3, {**IN3[0], "missing_details": None}, {**IN3[0], "missing_details": []}]

    assert len(load_tasks(write(tmp_path / "in3.jsonl", rows))) == 2
    assert "2 rows left out: vague, and without missing details" in caplog.text


def test_details_of_one_name_are_told_apart_and_flags_may_be_words(tmp_path):
    details = [{"description": "Budget", "options": [o], "importance": i} for o, i in ("a3", "b1")]
    rows = [
        {**IN3[0], "vague": "True", "missing_details": details},
        {**IN3[0], "task": "Who?", "vague": "False"},
    ]

    vague, clear = load_tasks(write(tmp_path / "in3.jsonl", rows))

    assert [(f.name, f.answer, f.weight) for f in vague.facts] == [
        ("Budget", "Budget: a.", 3.0),
        ("Budget (2)", "Budget: b.", 1.0),
    ]
    assert clear.facts == ()


DETAIL = IN3[0]["missing_details"][0]
MEDIQ = {"question": "What is it?", "context": ["A fever."], "options": {}, "facts": []}


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({**IN3[0], "task": None}, "task must be a non-empty text, got None"),
        ({**IN3[0], "vague": "perhaps"}, "vague must be true or false, got 'perhaps'"),
        ({**IN3[0], "missing_details": ["Budget"]}, "must be a list of objects, got 'Budget' in"),
        ({**IN3[0], "missing_details": [{"options": []}]}, "description must be a non-empty text"),
        ({**IN3[0], "missing_details": [{**DETAIL, "options": "small"}]}, "options must be a list"),
        ({**IN3[0], "missing_details": [{**DETAIL, "options": [{"a": 1}]}]}, "an option must be a"),
        *(
            ({**IN3[0], "missing_details": [{**DETAIL, "importance": weight}]}, "a number above 0")
            for weight in ("0", "nan", -1, "high")
        ),
        ({"sharded_instructions": []}, "sharded_instructions is empty"),
        ({"shards": [{"shard": None}]}, "shard must be a non-empty text, got None"),
        ({**MEDIQ, "facts": "He was abroad."}, "facts must be a list, got 'He was abroad.'"),
        ({**MEDIQ, "facts": [{"fact": "Abroad."}]}, "a fact must be a non-empty text, got {'fact'"),
        ({**MEDIQ, "context": [["A fever."]]}, "a sentence of context must be a non-empty text"),
        ({**MEDIQ, "options": "flu"}, "options must be a list, got 'flu'"),
        ({"title": None, "text": None}, "title must be a non-empty text, got None"),
        ({**MATH[1], "problem": ["1+1?"]}, "problem must be a non-empty text, got"),
        ({**BIGCODEBENCH[0], "canonical_solution": None}, "canonical_solution must be a non-empty"),
        ({"single_turn_prompt": "g", "single_turn_completion": ["a"]}, "completion must be a non-"),
        ({"single_turn_prompt": "g", "task_id": [1]}, "task_id must be a non-empty text, got"),
        ({"single_turn_prompt": "g", "single_turn_metadata": "a"}, "must be an object, got 'a'"),
        ({"single_turn_prompt": "g", "single_turn_metadata": [1]}, r"an object, got \[1\]"),
        (
            {"single_turn_prompt": "g", "facts": [{"name": "a", "answer": "b", "cues": "place"}]},
            "cues must be a list, got 'place'",
        ),
        (
            {
                "single_turn_prompt": "g",
                "facts": [{"name": "a", "answer": "b"}],
                "told_openings": [{"text": "t", "tells": ["c"]}],
            },
            "an opening tells 'c', which is no fact of the task; it has a",
        ),
        ({"single_turn_prompt": "g", "facts": [{"name": "a", "answer": " "}]}, "a fact needs"),
        (
            {"single_turn_prompt": "g", "facts": [{"name": "a", "answer": "b"}] * 2},
            "two facts are called 'a'",
        ),
    ],
)
def test_an_odd_row_is_refused_with_its_place(tmp_path, row, error):
    with pytest.raises(ValueError, match=r"odd.jsonl row 2: .*" + error):
        load_tasks(write(tmp_path / "odd.jsonl", [{"single_turn_prompt": "fine"}, row]))


@pytest.mark.parametrize("column", ["shards", "sharded_instructions"])
@pytest.mark.parametrize("key", ["shard", "shard_text"])
def test_lost_in_conversation_opens_with_its_first_shard(tmp_path, key, column):
    shards = [{"shard_id": i, key: f"part {i}"} for i in range(3)]
    row = {"task_id": "x", "task": "math", column: shards}

    (task,) = load_tasks(write(tmp_path / "lic.jsonl", [row]))

    assert (task.opening, task.single_turn_prompt) == ("part 0", "part 0 part 1 part 2")
    assert [fact.answer for fact in task.facts] == ["part 1", "part 2"]


@pytest.mark.parametrize(("answer", "reference"), [("7", "7"), (7, "7"), (["a"], ""), (None, "")])
def test_the_answer_of_a_sharded_task_may_be_a_number(tmp_path, answer, reference):
    row = {"task_id": 0, "shards": ["How many?", "There are 7."], "answer": answer}

    (task,) = load_tasks(write(tmp_path / "lic.jsonl", [row]))

    assert (task.task_id, task.single_turn_completion) == ("0", reference)


def test_numbers_are_texts_where_texts_belong_and_metadata_may_be_json(tmp_path):
    row = {
        "single_turn_prompt": "g",
        "single_turn_completion": 0,
        "single_turn_metadata": '{"kind": "k"}',
        "facts": [{"name": "guests", "answer": "None.", "value": 0}],
    }
    rows = [row, {"single_turn_prompt": "h", "single_turn_metadata": ""}]

    task, bare = load_tasks(write(tmp_path / "own.jsonl", rows))

    assert (task.single_turn_completion, task.metadata) == ("0", {"kind": "k"})
    assert task.facts[0].value == "0"
    assert bare.metadata == {}


def test_nan_is_no_text(tmp_path):
    nan = float("nan")
    names = ("task_id", "opening", "task_desc", "single_turn_completion", "facts")
    goal = {"single_turn_prompt": "Plan a party."}

    (task,) = load_tasks(write(tmp_path / "a.jsonl", [{**goal, **dict.fromkeys(names, nan)}]))
    (bare,) = load_tasks(write(tmp_path / "b.jsonl", [goal]))

    assert task == bare
    with pytest.raises(ValueError, match="row 1: answer must be a non-empty text, got nan"):
        load_tasks(write(tmp_path / "c.jsonl", [{**goal, "facts": [{"name": "a", "answer": nan}]}]))


def test_blank_texts_and_empty_lists_are_none_and_a_number_names_a_fact(tmp_path):
    row = {
        "single_turn_prompt": "g",
        "single_turn_completion": " ",
        "opening": "\n",
        "single_turn_metadata": [],
        "facts": [{"name": 1, "answer": "a", "cues": ""}],
        "told_openings": [{"text": "t", "tells": [1]}],
    }

    (task,) = load_tasks(write(tmp_path / "own.jsonl", [row]))

    assert (task.single_turn_completion, task.opening, task.metadata) == ("", "", {})
    assert (task.facts[0].name, task.facts[0].cues) == ("1", ())
    assert task.told_openings[0].tells == ("1",)


CASE = {
    "id": 7,
    "question": "What is it?",
    "context": ["A 30-year-old man has had a fever for 2 days", "He was abroad."],
    "options": {"A": "flu", "B": "malaria"},
    "answer": "malaria",
}


@pytest.mark.parametrize(
    "context",
    [
        CASE["context"],
        [None, " ", *CASE["context"]],
        "A 30-year-old man has had a fever for 2 days. He was abroad.",
    ],
)
@pytest.mark.parametrize(
    "facts",
    [
        ["1. The patient is 30 years old.", "2. He has a fever.", "3. He was abroad."],
        ["1) The man has a fever.", "2) He was abroad."],
        [],
        None,
    ],
)
def test_mediq_facts_are_told_when_asked(tmp_path, facts, context):
    row = {**CASE, "facts": facts, "context": context}

    (task,) = load_tasks(write(tmp_path / "mediq.jsonl", [row]))

    assert task.task_id == "7"
    assert task.opening == (
        "A 30-year-old man has had a fever for 2 days. What is it? A: flu B: malaria"
    )
    assert [fact.answer for fact in task.facts] == ["He was abroad."]
    assert task.single_turn_completion == "malaria"


@pytest.mark.parametrize("facts", [["\u53d1\u70e7\u3002"], ["He is ok."]])
def test_mediq_facts_of_short_words_alone_are_facts(tmp_path, facts):
    row = {**CASE, "facts": facts}
    told = {**row, "context": [f"A man. {facts[0]}"]}

    task, without = load_tasks(write(tmp_path / "mediq.jsonl", [row, {**told, "id": 8}]))

    assert [fact.answer for fact in task.facts] == facts
    assert without.facts == ()


@pytest.mark.parametrize(
    ("fact", "answers"),
    [
        ("38.5 C temperature was measured.", ["38.5 C temperature was measured."]),
        ("1. 38.5 C temperature was measured.", ["38.5 C temperature was measured."]),
        ("The patient is male.", ["The patient is male."]),
        ("He has no chest pain.", ["He has no chest pain."]),
        ("She denies chest pain.", ["She denies chest pain."]),
        ("The patient has chest pain.", []),
        ("The patient is 45 years old.", []),
    ],
)
def test_mediq_facts_are_left_out_only_where_the_opening_tells_them(tmp_path, fact, answers):
    case = ["A 45-year-old presents with chest pain."]
    row = {**CASE, "context": case, "facts": [fact]}

    (task,) = load_tasks(write(tmp_path / "mediq.jsonl", [row]))

    assert [fact.answer for fact in task.facts] == answers


def test_mediq_facts_may_name_the_sex_otherwise(tmp_path):
    row = {**CASE, "facts": ["The patient is male.", "The patient is a woman."]}

    (task,) = load_tasks(write(tmp_path / "mediq.jsonl", [row]))

    assert [fact.answer for fact in task.facts] == ["The patient is a woman."]


def test_abg_coqa_asks_only_where_it_is_ambiguous(tmp_path):
    turn = {"question": "Where did she go?", "answer": "home"}
    clarification = {
        "question": "Do you mean Ann or Bea?",
        "answers": [{"clr_ans": "Ann", "org_ans": "to the lake"}],
    }
    rows = [
        {
            "story": f"Ann and Bea, {kind}.",
            "history_turns": [{"question": "Who went?", "answer": "one of them"}],
            "target_turn": turn,
            "ambiguity": kind,
            **({"clarification_turn": clarification} if kind == "ambiguous" else {}),
        }
        for kind in ("ambiguous", "non_ambiguous")
    ]
    (tmp_path / "abg.json").write_text(json.dumps({"version": "1", "data": rows}))

    ambiguous, clear = load_tasks(tmp_path / "abg.json")

    story = "Ann and Bea, ambiguous."
    assert ambiguous.opening == f"{story}\n\nWho went? one of them\n\nWhere did she go?"
    assert facts_told(ambiguous.facts, [{"role": "user", "content": ambiguous.opening}]) == set()
    (fact,) = ambiguous.facts
    assert (fact.question, fact.answer) == ("Do you mean Ann or Bea?", "I mean this: Ann")
    assert ambiguous.single_turn_completion == "to the lake"
    assert clear.facts == ()
    assert clear.opening == clear.single_turn_prompt


def test_what_is_meant_may_be_told_in_other_words(tmp_path):
    row = {
        "story": "Ann went to the old mill, then to the lake.",
        "target_turn": {"question": "Where was she?"},
        "ambiguity": "ambiguous",
        "clarification_turn": {
            "question": "Before or after?",
            "answers": [{"clr_ans": "when she was at the old mill", "org_ans": "at the mill"}],
        },
    }

    (task,) = load_tasks(write(tmp_path / "abg.jsonl", [row]))

    def told(*texts):
        return facts_told(task.facts, [{"role": "user", "content": text} for text in texts])

    assert told(task.opening) == set()
    assert told(task.opening, "At the old mill, please.") == {"what I mean"}


def test_a_hub_dataset_has_a_split_and_a_configuration(monkeypatch):
    asked = []

    def load_dataset(*words, **options):
        asked.append((words, options))
        return [{"single_turn_prompt": "goal"}]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setattr("collabllm.tasks.loading.check_reachable", lambda path, kind: None)

    (task,) = TaskSettings(
        tasks="org/name", dataset_split="test", dataset_config="hard"
    ).load_tasks()

    assert task.single_turn_prompt == "goal"
    assert asked == [(("org/name", "hard"), {"split": "test", "streaming": True})]


def test_a_shard_that_stands_twice_is_one_fact(tmp_path, caplog):
    row = {"shards": ["What is left?", "He sells two.", "He has ten.", "He sells two."]}

    (task,) = load_tasks(write(tmp_path / "sharded.jsonl", [row]))

    assert [(fact.name, fact.answer) for fact in task.facts] == [
        ("shard 2", "He sells two."),
        ("shard 3", "He has ten."),
    ]
    assert "says one fact twice, which counts once: 'He sells two.'" in caplog.text
