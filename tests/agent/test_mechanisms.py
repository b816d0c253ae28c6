"""Reflection, replay and roles, on a callable and on a module, in front of the scripted endpoint: the gate's word.

The whole table, with more requests, is `python tests/bench/bench_mechanisms.py`.
"""

from tests.bench.bench_mechanisms import KINDS, MECHANISMS, measured, sample, shown, traced

from ratchet.flows.template.desk.scripted_llm import running


def test_each_mechanism_is_proven_on_each_kind_and_without_it_nothing_is(project, tmp_path):
    rows = []
    with running() as llm, traced():
        for mechanism in MECHANISMS:
            for kind in KINDS:
                (folder := tmp_path / f"{mechanism}-{kind}").mkdir()
                name = f"{project}-{mechanism}-{kind}"
                rows += measured(mechanism, kind, llm.address, sample(24, 24), name, folder)
    print(f"\n{shown(rows)}")
    assert [(one.mechanism, one.kind, one.on) for one in rows if one.verdict.decision == "promote"] == [
        (mechanism, kind, True) for mechanism in MECHANISMS for kind in KINDS
    ]
    for one in rows:
        low, high = one.verdict.ci
        assert (low > 0) if one.on else (low <= 0 <= high and abs(one.verdict.gain or 0) < 0.2)
