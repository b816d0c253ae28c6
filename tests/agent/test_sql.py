"""SQL over SQLite in InterCode's protocol: rewards by hand, what a query must not do, drift, and the real questions."""

import os
import sqlite3
import time
from pathlib import Path

import pytest

from ratchet.agent.case import Case
from ratchet.agent.environment import Action
from ratchet.agent.environments.sql import Sql, agreement, schema, sql_cases
from ratchet.agent.environments.sql_queries import simple_queries
from ratchet.agent.errors import BadInput

REAL = Path(os.environ.get("RATCHET_SHARED", "../shared")) / "data" / "intercode_sql"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no InterCode-SQL data in {REAL}")


@pytest.fixture
def folder(tmp_path):
    with sqlite3.connect(tmp_path / "zoo.sqlite") as database:
        database.executescript(
            "CREATE TABLE animal (name TEXT, age INTEGER); CREATE TABLE keeper (id INTEGER);"
            "INSERT INTO animal VALUES ('lynx', 4), ('otter', 2), ('wren', 1);"
        )
    database.close()
    return tmp_path


def case(gold="SELECT name FROM animal ORDER BY age", **inputs):
    return Case(
        inputs={"question": "Names by age?", "database": "zoo"} | inputs,
        expected=gold,
    )


def answer(folder, query, *, gold="SELECT name FROM animal ORDER BY age", **settings):
    environment = Sql(folder, **settings)
    environment.reset(case(gold))
    seen, done = environment.step(Action(name=query))
    return seen.text, done, environment.outcome()


def test_the_question_and_the_schema_are_shown(folder):
    seen = Sql(folder).reset(case())
    assert seen.text == "Names by age? Tables: animal(name, age); keeper(id)"
    assert seen.options == ()


def test_the_same_rows_in_the_same_order_are_right(folder):
    text, done, outcome = answer(folder, "select name from animal order by age asc")
    assert "Last query: 3 rows: wren; otter; lynx" in text
    assert (done, outcome.score, outcome.feedback) == (True, 1.0, "")


@pytest.mark.parametrize(
    ("rows", "gold", "score"),
    [
        ("abc", "abc", 1.0),
        ("", "", 1.0),
        ("ab", "abc", 2 / 3),
        ("abcd", "ab", 0.5),
        ("aab", "ab", 2 / 3),  # a multiset
        ("xyz", "abc", 0.0),
        ("cba", "abc", 0.0),  # tau = -1
        ("acb", "abc", 1 / 3),  # tau = 1/3
        ("", "a", 0.0),
    ],
)
def test_the_reward_is_intersection_over_union_times_kendalls_tau(rows, gold, score):
    assert agreement([(r,) for r in rows], [(r,) for r in gold]) == pytest.approx(score)


def test_a_query_that_fails_is_an_observation_and_scores_nothing(folder):
    text, done, outcome = answer(folder, "SELECT wings FROM animal")
    assert "Error: no such column: wings" in text
    assert (done, outcome.score) == (True, 0.0)
    assert outcome.feedback == "The query failed: no such column: wings"


@pytest.mark.parametrize(
    "query",
    [
        "DROP TABLE animal",
        "INSERT INTO keeper VALUES (1)",
        "ATTACH 'other.sqlite' AS other",
        "PRAGMA journal_mode = WAL",
        "SELECT load_extension('x')",
        "SELECT 1; DROP TABLE animal",
        "SELECT zeroblob(100000000)",
        "SELECT '\ud800'",
    ],
)
def test_what_is_not_reading_is_refused(folder, query):
    before = (folder / "zoo.sqlite").read_bytes()
    text, _, outcome = answer(folder, query)
    assert "Error: " in text
    assert outcome.score == 0.0
    assert (folder / "zoo.sqlite").read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["zoo.sqlite"]


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT {} FROM n"


def test_a_query_without_end_is_broken_off(folder):
    began = time.monotonic()
    text, _, _ = answer(folder, ENDLESS.format("count(*)"), seconds=0.2)
    assert "broken off after 0.2 s" in text
    assert time.monotonic() - began < 5


def test_rows_without_end_are_cut_and_long_rows_are_bounded(folder):
    assert "more than 10000 rows" in answer(folder, ENDLESS.format("x"))[0]
    assert len(answer(folder, "SELECT hex(zeroblob(9999))")[0]) < 500


def test_several_turns_end_by_submitting_and_the_last_query_counts(folder):
    environment = Sql(folder, turns=3)
    environment.reset(case())
    assert environment.step(Action(name="SELECT 1"))[1] is False
    assert environment.outcome().score == 0.0
    assert environment.step(Action(name="SELECT name FROM animal ORDER BY age"))[1] is False
    assert environment.step(Action(name="submit;"))[1] is True
    assert environment.outcome().score == 1.0


def test_without_a_gold_query_there_is_no_score_and_without_a_query_no_point(folder):
    environment = Sql(folder)
    environment.reset(case(gold=None))
    environment.step(Action(name="SELECT 1"))
    assert environment.outcome().score is None
    environment.reset(case())
    environment.step(Action(name="submit"))
    assert (environment.outcome().score, environment.outcome().feedback) == (0.0, "No query ran.")


def test_a_second_attempt_begins_anew(folder):
    environment = Sql(folder)
    environment.reset(case())
    environment.step(Action(name="SELECT name FROM animal ORDER BY age"))
    environment.reset(case())
    assert environment.outcome().score == 0.0


def test_tables_that_were_renamed_are_found_under_their_new_name_only(folder):
    environment = Sql(folder)
    drifted = case(renamed={"animal": "beast of the zoo", "elsewhere": "x"})
    assert "beast of the zoo(name, age)" in environment.reset(drifted).text
    assert "no such table: animal" in environment.step(Action(name="SELECT * FROM animal"))[0].text
    environment.reset(drifted)
    environment.step(Action(name='SELECT name FROM "beast of the zoo" ORDER BY age'))
    assert environment.outcome().score == 1.0
    assert drifted.case_id != case().case_id


@pytest.mark.parametrize(
    ("inputs", "gold", "message"),
    [
        ({"question": None}, "SELECT 1", "need `question` and `database`"),
        ({"database": "../zoo"}, "SELECT 1", "no database '../zoo'"),
        ({"database": "ark"}, "SELECT 1", "no database 'ark'"),
        ({}, "SELECT wings FROM animal", "the gold query"),
    ],
)
def test_a_case_that_cannot_be_played_says_why(folder, inputs, gold, message):
    with pytest.raises(BadInput, match=message):
        Sql(folder).reset(case(gold, **inputs))


def test_options_are_offered_where_the_agent_is_too_small_to_write(folder):
    environment = Sql(folder, turns=2, offer=lambda case, tables: simple_queries(case, tables, most=4))
    seen = environment.reset(case(question="How many animals are there?"))
    assert seen.options[0].name == "SELECT count(*) FROM animal"
    assert len(seen.options) == 5
    assert seen.options[-1].name == "submit"


def test_simple_queries_run_and_need_a_table(folder):
    database = sqlite3.connect(":memory:")
    database.execute('CREATE TABLE "of two" ("a b" TEXT, c)')
    for query in simple_queries(case(), schema(database), most=100):
        database.execute(query)
    database.close()
    assert simple_queries(case(), {}) == []


def test_a_folder_without_questions_is_refused(folder):
    with pytest.raises(BadInput, match=r"no questions\.json"):
        sql_cases(folder)


@needs_real
def test_every_gold_query_of_intercode_scores_1_against_itself():
    cases = sql_cases(REAL)
    environment = Sql(REAL)
    assert len(cases) > 450
    assert {c.slice for c in cases} == {p.stem for p in REAL.glob("*.sqlite")}
    for one in cases[::5]:
        environment.reset(one)
        environment.step(Action(name=one.expected))
        assert environment.outcome().score == 1.0
