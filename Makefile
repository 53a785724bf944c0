# Every target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CHI := .venv-chi
# JupyterLab asks root to say so
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

# modules are compiled once and not in each of the many processes
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo lab quick test test-system bench clean

demo: $(READY)  ## run experiments 1 to 15 on the simulated GPU and print the table
	$(BIN)/labkit run --all --profile tiny

# JupyterLab prints its URL; ARGS=--no-browser leaves the browser closed
# a terminal in it would be a login shell, which forgets PATH
lab: $(READY)  ## the course, in JupyterLab
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/jupyter lab --LabApp.default_url=/lab/tree/labs/00_setup.ipynb \
	  --ServerApp.terminado_settings="shell_command=$${SHELL:-/bin/sh}" $(AS_ROOT) $(ARGS)

quick: $(READY)  ## lint, check types, then the tests that start no process, those of what has changed first
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check
	$(BIN)/python -m pytest -n 2 --dist loadfile --quick

test: $(READY)  ## lint, check types, then all tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-system: $(READY) $(CHI)/.ready  ## a real OpenStack and a real Slurm, the image built for real, kills, the labs planned and in a browser; root on Debian
	@# an image is built while OpenStack's services wait for each other
	mkdir -p build
	$(BIN)/python -m pytest --confcutdir=tests/image tests/image > build/image.log 2>&1 & image=$$!; \
	  $(CHI)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --confcutdir=tests/openstack tests/openstack; \
	  openstack=$$?; wait $$image; image=$$?; cat build/image.log; exit $$((openstack + image))
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/system

bench: $(READY)  ## measure what reporting, predicting, the ledger, panels and grading cost, how fast the command answers, what two devices bring, and which test notices each guard that is taken out
	$(BIN)/python tests/benchmarks/reporting_cost.py
	$(BIN)/python tests/benchmarks/loop_cost.py
	$(BIN)/python tests/benchmarks/start_up.py
	$(BIN)/python tests/benchmarks/prediction_cost.py
	$(BIN)/python tests/benchmarks/ledger.py
	$(BIN)/python tests/benchmarks/panel_cost.py
	$(BIN)/python tests/benchmarks/grading.py
	$(BIN)/python tests/benchmarks/false_alarms.py
	$(BIN)/python tests/benchmarks/scaling.py
	$(BIN)/python tests/mutations/mutate.py

clean:  ## remove the environments; runs stay
	rm -rf $(VENV) $(CHI) .venv-openstack build *.egg-info

NOTICE := package.json static/remoteEntry.js
$(READY): requirements.txt tests/requirements.txt pyproject.toml docker/jupyter/server_extension.json docker/jupyter/lab_settings.json $(NOTICE:%=docker/jupyter/labextension/%)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt -r tests/requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	install -D -m 644 docker/jupyter/server_extension.json $(VENV)/etc/jupyter/jupyter_server_config.d/labkit.json
	install -D -m 644 docker/jupyter/lab_settings.json $(VENV)/share/jupyter/lab/settings/overrides.json
	$(foreach file,$(NOTICE),install -D -m 644 docker/jupyter/labextension/$(file) $(VENV)/share/jupyter/labextensions/labkit-lease/$(file) &&) true
	@# DeepSpeed compiles its CPU optimizer at the first use, for minutes; without a compiler that experiment is skipped
	-$(BIN)/python -W ignore -m labkit.train.compile
	touch $@

# an environment without torch: who only reserves a node needs none
$(CHI)/.ready: provisioning/requirements.txt tests/openstack/workers.txt
	$(PYTHON) -m venv $(CHI)
	$(CHI)/bin/python -m pip install --quiet --require-hashes -r provisioning/requirements.txt
	$(CHI)/bin/python -m pip install --quiet -r tests/openstack/workers.txt
	touch $@
