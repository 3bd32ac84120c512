#!/usr/bin/env python3
"""Runs OpenCode with an OpenAI-compatible provider. The name it is called by tells which one and how:
NAME for the terminal, NAME-acp for editors, NAMEtoad for Toad."""

import argparse
import json
import os
import sys
import tempfile
import urllib.request
from pathlib import Path

SHORT = {"blablatoad": "blablador"}
SCHEMA = "https://opencode.ai/config.json"
MAX_ANSWER = 4 << 20


def fail(message):
    print(message, file=sys.stderr)
    sys.exit(1)


def called_as(program):
    if program in SHORT:
        return SHORT[program], "toad"
    for suffix, mode in (("-acp", "acp"), ("toad", "toad")):
        if program.endswith(suffix) and len(program) > len(suffix):
            return program[: -len(suffix)], mode
    return program, "terminal"


def setting(name, key, default=None):
    value = os.environ.get(f"TEROK_OC_{name.upper()}_{key}") or default
    if value is None:
        fail(f"{name}: this task was launched without TEROK_OC_{name.upper()}_{key}")
    return value


def read_json(path):
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        fail(f"{path} cannot be read: {error}")
    return value if isinstance(value, dict) else {}


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".opencode-")
    try:
        with os.fdopen(handle, "w") as file:
            json.dump(value, file, indent=2)
            file.write("\n")
        os.chmod(temporary, 0o600)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def api_key(name, config):
    variable = f"{setting(name, 'ENV_VAR_PREFIX', name.upper())}_API_KEY"
    key = os.environ.get(variable) or read_json(config / "config.json").get("api_key")
    if not key:
        fail(f"{name}: no API key. Store one on the host, or set {variable}.")
    return key


def models(base_url, key):
    request = urllib.request.Request(f"{base_url.rstrip('/')}/models", headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            listed = json.loads(answer.read(MAX_ANSWER)).get("data", [])
        return [model["id"] for model in listed if isinstance(model, dict) and isinstance(model.get("id"), str)]
    except (OSError, ValueError, AttributeError) as error:
        fail(f"{base_url}: the models cannot be listed: {error}")


def choose(name, offered):
    preferred, fallback = setting(name, "PREFERRED_MODEL"), setting(name, "FALLBACK_MODEL")
    if preferred in offered:
        return preferred
    if not offered:
        fail(f"{name}: no models are offered")
    chosen = fallback if fallback in offered else offered[0]
    print(f"{name}: {preferred} is not offered, using {chosen}", file=sys.stderr)
    return chosen


def merge(config, name, base_url, offered, chosen):
    """The user's own choices stay: a model of another provider, and permissions."""
    config.setdefault("$schema", SCHEMA)
    provider = config.setdefault("provider", {})
    provider[name] = {
        "npm": "@ai-sdk/openai-compatible",
        "name": setting(name, "DISPLAY_NAME", name),
        "options": {"baseURL": base_url, "apiKey": f"{{env:{setting(name, 'ENV_VAR_PREFIX', name.upper())}_API_KEY}}"},
        "models": {model: {"name": model} for model in offered},
    }
    model = config.get("model")
    if not isinstance(model, str) or (model.startswith(f"{name}/") and model[len(name) + 1 :] not in offered):
        config["model"] = f"{name}/{chosen}"
    config.setdefault("permission", {"*": "allow"})
    return config


def main():
    name, mode = called_as(Path(sys.argv[0]).name)
    parser = argparse.ArgumentParser(prog=name, add_help=False)
    parser.add_argument("--list-models", action="store_true")
    parser.add_argument("--base-url")
    options, rest = parser.parse_known_args()
    home = Path(os.environ.get("HOME", "/home/dev"))
    config_dir = home / setting(name, "CONFIG_DIR", f".{name}")
    base_url = options.base_url or setting(name, "BASE_URL")
    key = api_key(name, config_dir)
    offered = models(base_url, key)
    if options.list_models:
        print("\n".join(offered))
        return
    path = config_dir / "opencode" / "opencode.json"
    write_json(path, merge(read_json(path), name, base_url, offered, choose(name, offered)))
    os.environ["OPENCODE_CONFIG"] = str(path)
    os.environ[f"{setting(name, 'ENV_VAR_PREFIX', name.upper())}_API_KEY"] = key
    command = {"terminal": ["opencode"], "acp": ["opencode", "acp"], "toad": ["toad", "acp", f"{name}-acp"]}[mode]
    os.execvp(command[0], command + rest)


if __name__ == "__main__":
    main()
