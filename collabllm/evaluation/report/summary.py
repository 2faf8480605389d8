"""What people read when an evaluation ends: table.md, report.html, and a summary to print."""

from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from collabllm.evaluation.report.overview import write_report
from collabllm.evaluation.report.tables import to_markdown, to_summary
from collabllm.evaluation.results import Results
from collabllm.files import write_text

TABLE_FILE = "table.md"


def write_reports(folder: Path, results: Results) -> Path:
    """Write tables and report into an evaluation's folder, and print the answer.

    Returns:
        The report's path.
    """
    write_text(folder / TABLE_FILE, to_markdown(results))
    report = write_report(folder, results, overwrite=True)
    console = Console()
    console.print(Markdown(to_summary(results)))
    lines = [f"All tables: {folder / TABLE_FILE}", f"Report: {report}"]
    if results.cost_usd:
        lines.insert(1, f"Cost: ${results.cost_usd:.4f}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return report
