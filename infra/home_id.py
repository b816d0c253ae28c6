"""Which home wrote something: a random id in the home itself, since names of machines repeat in containers."""

import uuid
from pathlib import Path


def home_id(home: Path) -> str:
    """The home's id, made at its first use; two that ask at once get the same one."""
    path = home / "home_id"
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        made = home / f"home_id.{uuid.uuid4().hex}"
        made.write_text(uuid.uuid4().hex)
        try:
            path.hardlink_to(made)  # fails where another process was first
        except FileExistsError:
            pass
        finally:
            made.unlink()
    return path.read_text()
