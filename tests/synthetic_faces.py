"""A manifest for a folder of synthetic faces whose labels a machine gave: for demonstrations, no truth.

    python tests/synthetic_faces.py FOLDER

reads FOLDER/labels.csv (file, p_male, p_happy: what small networks hold likely, 0..1) and writes
FOLDER/manifest.csv, or --output=FILE, for the data set headshot_folder: every file is a person of its own,
and what the networks are unsure of stays empty.
"""

import argparse
import csv
import pathlib

SURE = 0.9  # from which the networks are believed


def write_manifest(folder: pathlib.Path, output: pathlib.Path | None = None) -> int:
    """Returns how many rows were written."""
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    answer = lambda p: "1" if p >= SURE else "0" if p <= 1 - SURE else ""
    with (output or folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "subject", "consent", "sex", "smile"])
        for row in rows:
            name = pathlib.PurePosixPath(row["file"]).stem
            sex, smile = answer(1 - float(row["p_male"])), answer(float(row["p_happy"]))
            writer.writerow([row["file"], name, "yes", sex, smile])
    return len(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path)
    options = parser.parse_args()
    print(f"{write_manifest(options.folder, options.output)} rows")
