"""Put a data set where the experiments look for it: a command line enters; files and a report leave."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from eclip.data.client import Client, FetchError, NoNetworkError
from eclip.data.fetch import IMAGE_ARCHIVE, RECORD_URL, fetch_ukiyoe_vg
from eclip.data.fetch_report import Report

FAILED, INCOMPLETE, INTERRUPTED = 1, 3, 130  # 2 is argparse's


def parser() -> argparse.ArgumentParser:
    """The two data sets and their options."""
    top = argparse.ArgumentParser(description=__doc__)
    sets = top.add_subparsers(dest="dataset", required=True)
    real = sets.add_parser(
        "ukiyoe_vg", help="fetch Ukiyo-eVG from Zenodo; a second call goes on where it ended"
    )
    real.add_argument("--root", type=Path, default=Path("data/ukiyoe_vg"))
    real.add_argument("--record-url", default=RECORD_URL)
    real.add_argument("--image-archive", default=IMAGE_ARCHIVE, help="its name in the record")
    real.add_argument("--workers", type=_positive, default=4, help="connections at once")
    real.add_argument("--max-requests", type=_positive, default=1500, help="the fewer, the more bytes")
    real.add_argument("--whole-archive", action="store_true", help="take the whole image archive, keep it")
    real.add_argument("--strict", action="store_true", help=f"exit with {INCOMPLETE} if anything is missing")
    drawn = sets.add_parser("synthetic", help="draw the embedded data set")
    drawn.add_argument("--root", type=Path, default=Path("data/synthetic"))
    drawn.add_argument("--prints", type=_positive, default=6000)
    drawn.add_argument("--test-prints", type=_positive, default=1000)
    drawn.add_argument("--seed", type=int, default=0)
    drawn.add_argument("--workers", type=_positive, default=None, help="processes; all cores by default")
    return top


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: at least 1")
    return value


def fetch(options: argparse.Namespace, console: Console) -> int:
    """Fetch Ukiyo-eVG and print the report, whatever happens; return the exit code."""
    report, client = Report(), Client(options.workers, notice=console.print)
    try:
        fetch_ukiyoe_vg(
            options.root,
            client=client,
            record_url=options.record_url,
            image_archive=options.image_archive,
            workers=options.workers,
            max_requests=options.max_requests,
            whole_archive=options.whole_archive,
            console=console,
            report=report,
        )
        return INCOMPLETE if options.strict and not report.complete else 0
    except FetchError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
        if isinstance(error, NoNetworkError):
            console.print("Without a network, train on the embedded data set: data=synthetic (the default).")
        return FAILED
    except KeyboardInterrupt:
        console.print("Broken off; the same command goes on from here.")
        return INTERRUPTED
    finally:
        client.close()
        console.print(report.table())


def draw(options: argparse.Namespace, console: Console) -> int:
    """Draw the embedded data set and print its summary."""
    from eclip.data.synthetic import draw_dataset

    summary = draw_dataset(
        options.root,
        prints=options.prints,
        test_prints=options.test_prints,
        seed=options.seed,
        workers=options.workers,
        progress=True,
    )
    console.print(summary)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0, or 1 for an error, 3 for gaps under --strict, 130 if interrupted."""
    options = parser().parse_args(arguments)
    return fetch(options, Console()) if options.dataset == "ukiyoe_vg" else draw(options, Console())


if __name__ == "__main__":
    sys.exit(main())
