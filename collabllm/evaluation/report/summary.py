"""What people read when an evaluation ends: table.md, report.html, and a summary to print."""

from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from collabllm.evaluation.report.overview import write_report
from collabllm.evaluation.report.tables import to_markdown, to_summary
from collabllm.evaluation.results import Results
from collabllm.files import write_text
from collabllm.servers.prices import name_unpriced
from collabllm.servers.usage import UNANSWERED, Usage, usage_line

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
    lines = [usage_line(name, Usage(**counts)) for name, counts in results.usage.items()]
    if results.num_unanswered:
        lines.append(UNANSWERED.format(results.num_unanswered))
    if results.cost_usd:
        unpriced = name_unpriced(results.without_price)
        lines.append(f"Cost: ${results.cost_usd:.4f}{unpriced}")
    lines += [f"All tables: {folder / TABLE_FILE}", f"Report: {report}"]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return report
