# `make demo` runs the main job, `make test` the tests; both first set up .venv with what they need.
PYTHON ?= python3
VENV ?= .venv
RECORDS ?=

ready = $(VENV)/.ready
run = $(VENV)/bin/python

.PHONY: demo test lint docs audit oldest newest clean

demo: $(ready)
	$(run) benchmarks/main_job.py --output demo $(if $(RECORDS),--records "$(RECORDS)")

# a process per core; tests/conftest.py gives each one thread
test: $(ready) lint
	$(run) -m pytest -n logical

lint: $(ready)
	$(run) -m ruff check .

docs: $(VENV)/.ready-docs
	$(run) -m sphinx -W --keep-going -E -b html docs docs/_build/html

# known vulnerabilities of what is installed in $(VENV); the tool has an environment of its own
audit: $(ready)
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet pip-audit
	$(VENV)/audit/bin/pip-audit --skip-editable --path $$($(run) -c "import sysconfig; print(sysconfig.get_path('purelib'))")

# the tests with the oldest and the newest versions of all dependencies, each in an environment of its own
oldest newest: %:
	$(PYTHON) benchmarks/reliability/versions.py $@

# A torch that $(PYTHON) can already import is used rather than downloaded again. PIP_CONSTRAINT holds as ever.
$(ready): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PYTHON) -c "import importlib.util as u, pathlib as p; s = u.find_spec('torch'); \
	  s and next(p.Path('$(VENV)').glob('lib/*/site-packages')).joinpath('_installed_torch.pth').write_text(str(p.Path(s.origin).parents[1]))"
	$(run) -m pip install --quiet --upgrade pip
	$(run) -m pip install --quiet --editable ".[test]"
	touch $@

$(VENV)/.ready-docs: $(ready)
	$(run) -m pip install --quiet --editable ".[docs]"
	touch $@

clean:
	rm -rf $(VENV) demo docs/_build docs/api/generated
