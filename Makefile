# `make demo` runs the main job on scikit-learn's digits; `make test` runs lint, types and tests. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
FAST := not slow and not ray and not gpu and not browser
# Three processes of tests at a time, a module in one of them: modules share what takes long to set up, and tests of
# clusters wait more than they work.
WORKERS ?= 3
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: demo docs test test-fast test-hosts test-namespaces coverage lint types clean-venv
.PRECIOUS: .venv-hosts/%/.installed

# A study may end with "no policy passed": exit code 3, an honest result and no failure of the demo.
demo: $(STAMP)
	@$(BIN)/subsettune tune search_spaces/digits.yaml; code=$$?; if [ $$code -eq 3 ]; then exit 0; fi; exit $$code

test: $(STAMP) lint types
	$(PYTEST)

# What to run while working: without a cluster, a browser, a GPU or whatever takes long.
test-fast: $(STAMP)
	$(PYTEST) -m "$(FAST)"

# Packages of others that a study or a bundle works with: each has an environment of its own, as they disagree on
# versions; tests make studies and bundles, so `tune` is in each.
HOSTS := dashboard jobs mlflow tensorboard wandb accelerate autogluon flaml keras lightning ray-train skorch together transformers
# An environment takes about 7 GB; `make test-hosts KEEP=` removes each once its tests have passed.
KEEP ?= yes
test-hosts: $(STAMP) $(HOSTS:%=test-host-%)
	SUBSETTUNE_HOSTS=1 $(BIN)/python -m pytest tests/hosts/test_torch.py

# One of them: `make test-host-keras`.
test-host-%: .venv-hosts/%/.installed
	SUBSETTUNE_HOSTS=1 .venv-hosts/$*/bin/python -m pytest tests/hosts/test_$(subst -,_,$*).py
	$(if $(KEEP),,rm -rf .venv-hosts/$*)

# A job's study may lie on a store.
.venv-hosts/jobs/.installed: MORE := "moto[s3]>=5.1" "flask>=3" "flask-cors>=5"
.venv-hosts/%/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-hosts/$*
	.venv-hosts/$*/bin/python -m pip install --quiet --editable ".[tune,$*]" "pytest>=8" "pytest-timeout>=2.3" "hypothesis>=6.100" "psutil>=5.9" $(MORE)
	@touch $@

# Everything of tables in one environment, with the Ray that AutoGluon asks for.
.venv-hosts/together/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-hosts/together
	.venv-hosts/together/bin/python -m pip install --quiet --editable ".[tune,flaml,autogluon]" "autogluon.tabular[ray]>=1.6" "pytest>=8" "pytest-timeout>=2.3" "hypothesis>=6.100" "psutil>=5.9"
	@touch $@

# Clusters of machines that are namespaces of this one: a link is lost, a folder is not shared. Takes root's rights.
test-namespaces: $(STAMP)
	SUBSETTUNE_NAMESPACES=1 $(BIN)/python -m pytest tests/study/execute/test_ray_lost_link.py tests/study/execute/test_ray_shared.py

# The pages of docs/ as a site in site/: what is made from the code is written anew. Nothing is fetched; a test checks links.
docs: $(STAMP)
	$(BIN)/python docs/scripts/write.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Lines and branches that no test reaches. Code that runs only in Ray's own processes is not seen.
coverage: $(STAMP)
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-report=xml

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	@touch $(STAMP)

clean-venv:
	rm -rf .venv .venv-hosts
