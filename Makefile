# Aliases. Each creates .venv first and finds it up to date by the hash of the lock file.
PYTHON ?= python3.11
PY := .venv/bin/python
TWO := -n 2 --dist loadfile  # pytest in two processes, a file stays in one

.PHONY: reports test check lab clean lock environment bench peers faults
.DEFAULT_GOAL := reports

reports: environment  ## the demo profile, offline, then reports/index.html
	@$(PY) run_all.py demo

test: environment  ## everything: check, slow tests, the smoke profile
	@$(PY) -m ruff check . && $(PY) -m ruff format --check lib tests tools run_all.py
	@$(PY) -m mypy
	@OMP_NUM_THREADS=1 $(PY) -m pytest tests lib --doctest-modules $(TWO)

check: environment  ## ruff, types, doctests and fast tests, in under 90 seconds
	@$(PY) -m ruff check . && $(PY) -m ruff format --check lib tests tools run_all.py
	@$(PY) -m mypy > .venv/types.log 2>&1 & types=$$!; \
	OMP_NUM_THREADS=1 $(PY) -m pytest tests lib --doctest-modules -m "not slow and not page" $(TWO); \
	tests=$$?; wait $$types; types=$$?; cat .venv/types.log; exit $$((tests + types))

lab: environment  ## JupyterLab, offline as the runner is, with nbdime as git's differ for notebooks
	@$(PY) -m nbdime config-git --enable
	@$(PY) -c "import os, sys; from lib.pipeline.surroundings import FIXED; os.execve(sys.executable, [sys.executable, '-m', 'jupyterlab', *sys.argv[1:]], os.environ | FIXED)" --notebook-dir=. --LabApp.default_url='/lab/tree/notebooks/START_HERE.md?factory=Markdown%20Preview'

lock: environment  ## requirements.lock and environment.yml from pyproject.toml
	@$(PY) tools/lock.py

faults: environment  ## every fault on every notebook (resumes; docs/faults.md), then 100 random SIGKILLs
	@$(PY) -m tools.faults --publish
	@LINGREC_KILLS=100 $(PY) -m pytest tests/pipeline/test_kills.py -o log_cli=true

bench: environment peers  ## every figure of speed, beside the peers; alone on a quiet machine
	@$(PY) run_all.py bench --only speed

peers:  ## .venv-peers with RecBole and FuxiCTR from tools/peers.lock, for `make bench` alone
	@want=$$($(PYTHON) -c "import hashlib; print(hashlib.sha256(open('tools/peers.lock','rb').read()).hexdigest())") \
	&& if [ "$$(cat .venv-peers/lock-hash 2>/dev/null)" != "$$want" ]; then \
		echo "Setting up .venv-peers from tools/peers.lock (a few minutes, once)" \
		&& $(PYTHON) -m venv .venv-peers \
		&& .venv-peers/bin/python -m pip install --quiet --no-deps -r tools/peers.lock \
		&& echo "$$want" > .venv-peers/lock-hash; \
	fi

clean:  ## reports and stored results; the environment and data/raw stay
	rm -rf reports data/store data/scratch

environment:
	@want=$$($(PYTHON) -c "import hashlib; print(hashlib.sha256(open('requirements.lock','rb').read()+open('pyproject.toml','rb').read()).hexdigest())") \
	&& if [ "$$(cat .venv/lock-hash 2>/dev/null)" != "$$want" ]; then \
		echo "Setting up .venv from requirements.lock (a few minutes, once)" \
		&& $(PYTHON) -m venv .venv \
		&& $(PY) -m pip install --quiet --upgrade -r requirements.lock \
		&& $(PY) -m pip install --quiet --no-deps --no-build-isolation -e . \
		&& echo "$$want" > .venv/lock-hash; \
	fi
