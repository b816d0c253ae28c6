"""`[approval]` of `ratchet.toml`: a policy that cannot be meant is refused, and no run can set another."""

import pytest

from ratchet.agent.errors import BadInput
from ratchet.agent.settings_table import checked
from ratchet.flows.project_settings import ImproveSettings, ProjectSettings, read_settings


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"prompt": "anna"}, "approval.prompt: 'anna' is no rule: \"auto\", \"anyone\", or names"),
        ({"prompt": []}, "approval.prompt: [] is no rule"),
        ({"prompt": ["anna", " "]}, "is no rule"),
        ({"prompt": 3}, "approval.prompt: 3 is no rule"),
        ({"prompt": "auto"}, "prompt is 'auto' and memory needs a person: a riskier change cannot need less"),
        ({"two": ["topology"], "topology": ["anna", "Anna"]}, "two of topology = ('anna', 'Anna') cannot approve"),
        ({"two": ["memory"], "memory": "auto"}, "two of memory = 'auto' cannot approve"),
        ({"two": ["weights"]}, "approval.two"),
        ({"expires_days": 0}, "approval.expires_days = 0: it must be greater than 0 (> 0 and ≤ 365)"),
        ({"promt": ["anna"]}, "did you mean approval.prompt?"),
    ],
)  # fmt: skip
def test_a_policy_that_cannot_be_meant_is_refused_in_one_line(table, said):
    with pytest.raises(BadInput) as refused:
        checked({"approval": table}, ProjectSettings, "ratchet.toml")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_file_alone_says_who_approves(tmp_path):
    (tmp_path / "ratchet.toml").write_text('[approval]\nprompt = ["anna", "ben"]\nexpires_days = 2\n')
    assert read_settings(tmp_path, ProjectSettings).approval.who("prompt") == "one of anna, ben"
    with pytest.raises(BadInput, match="there is no approval here"):
        read_settings(tmp_path, ImproveSettings, ['approval.prompt=["eve"]'])
