"""`python -m collabllm` lists the scripts; `python -m collabllm NAME --flags` runs one."""

import ast
import runpy
import sys
from pathlib import Path

_FOLDERS = (Path(__file__).parents[1] / "scripts", Path(__file__).parent / "scripts")


def find_scripts() -> dict[str, Path]:
    """Return the scripts by name: those of the checkout, or those that the wheel brings."""
    folder = next((folder for folder in _FOLDERS if (folder / "train_sft.py").is_file()), None)
    return {path.stem: path for path in sorted(folder.glob("*.py"))} if folder else {}


def main() -> None:
    """List the scripts, or run the one that is named."""
    scripts = find_scripts()
    if len(sys.argv) > 1 and sys.argv[1] in scripts:
        path = scripts[sys.argv[1]]
        sys.argv = [str(path), *sys.argv[2:]]
        runpy.run_path(str(path), run_name="__main__")
        return
    print("usage: python -m collabllm SCRIPT [--help] [--flag VALUE ...]\n")
    for name, path in scripts.items():
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        print(f"  {name:<17} {text.splitlines()[0]}")
    if len(sys.argv) > 1 and sys.argv[1] not in ("-h", "--help"):
        print(f"\nThere is no script {sys.argv[1]!r}.", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
