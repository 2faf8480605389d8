"""The server of a study with made-up arms, as a process that can be killed.

python -m tests.evaluation.study_server FOLDER PORT
"""

import sys
from pathlib import Path

from collabllm.evaluation.desk import ArmDesk
from collabllm.evaluation.study.app import build_app
from collabllm.evaluation.study.host import Host
from collabllm.evaluation.study.store import read_study
from collabllm.web import Guard, find_port, serve
from tests.evaluation.study_people import Quiet

if __name__ == "__main__":
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    study = read_study(folder)
    desk = ArmDesk({}, {name: Quiet(name) for name in study.arms})
    with (
        find_port("127.0.0.1", port) as listener,
        Host(folder, study, desk, dict.fromkeys(study.arms, "")) as host,
    ):
        serve(Guard(build_app(host), "127.0.0.1"), listener)
