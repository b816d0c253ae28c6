"""MLflow is used by what it publishes: its tables are only read, in one file, and its hidden names nowhere."""

import ast
from pathlib import Path

import ratchet.infra

ROOM = Path(ratchet.infra.__file__).parent
TREES = {path: ast.parse(path.read_text()) for path in sorted(ROOM.rglob("*.py"))}
MAKES_THE_TABLES = "mlflow_database.py"
READS_THE_TABLES = "rows.py"
IN_THE_REFERENCE = "mlflow.store.entities.PagedList"
OF_PYTHON = {"_replace", "_exit"}
"""What named tuples and `os` publish with an underscore."""


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{one.name}" for one in node.names)


def test_no_module_enters_mlflows_store_but_the_one_that_makes_its_tables():
    inside = {
        path.name
        for path, tree in TREES.items()
        for name in imported(tree)
        if name.startswith("mlflow.store") and name != IN_THE_REFERENCE
    }
    assert inside == {MAKES_THE_TABLES}


def test_nothing_with_an_underscore_is_taken_from_mlflow():
    names = [
        f"{path.name}: {name}"
        for path, tree in TREES.items()
        for name in imported(tree)
        if name.startswith("mlflow") and any(part.startswith("_") for part in name.split("."))
    ]
    calls = [
        f"{path.name}:{node.lineno} {node.attr}"
        for path, tree in TREES.items()
        if any(name.startswith("mlflow") or name.endswith("Connection") for name in imported(tree))
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
        if node.attr not in OF_PYTHON
        if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    ]
    assert names + calls == []


def test_no_statement_writes_into_mlflows_tables():
    text = (ROOM / "traces" / READS_THE_TABLES).read_text().upper()
    assert not [word for word in ("INSERT ", "UPDATE ", "DELETE ") if word in text]
    raw = {path.name for path, tree in TREES.items() if "sqlalchemy.text" in set(imported(tree))}
    assert raw == {READS_THE_TABLES}
