"""schemathesis against our own OpenAPI: valid creates are accepted, and nothing that is sent makes the server fail.

What Kubernetes' schemas say in words of their own, schemathesis does not read. So metadata is replaced by a valid one, entries
of lists that are sets or maps (`x-kubernetes-list-type`) are made different, and a create that breaks a rule of
`x-kubernetes-validations` is not counted as valid. Says one line per kind; the last is the verdict.
"""

import base64
import itertools
import json
import os
import sys
import warnings
from collections import Counter, defaultdict

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core import NOT_SET
from schemathesis.generation import GenerationMode

warnings.filterwarnings("ignore")
SERVER, AUTHORITY = sys.argv[1], sys.argv[2]
CREATES, OTHERS = int(sys.argv[3]), int(sys.argv[4])
GROUPS = ["compute.evroclabs.net", "networking.evroclabs.net", "run.evroclabs.net", "iam.evroclabs.net"]
ENOUGH = 0.8
# Rules that no schema describes: references to objects outside of the API, the inside of a key, and rules over several fields.
IMAGE = "registry.evroc.localhost/demo/hello:v1"
KEY_FIELDS = [b"ssh-ed25519", bytes(range(32))]
KEY = "ssh-ed25519 " + base64.b64encode(b"".join(len(part).to_bytes(4, "big") + part for part in KEY_FIELDS)).decode()

session = requests.Session()
user = json.loads(os.environ["EVROC_USER"])
for name, field in [("user.crt", "client-certificate-data"), ("user.key", "client-key-data")]:
    with open(name, "wb") as file:
        file.write(base64.b64decode(user[field]))
session.cert = ("user.crt", "user.key")
session.verify = AUTHORITY
# The machine may name another bundle of authorities, which would win.
session.trust_env = False
numbers = itertools.count()
failures = []


def generated(operation, mode, count, use):
    quick = settings(
        max_examples=count, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate],
    )

    @quick
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case):
        use(case)

    run()


def send(case):
    response = case.call(session=session, timeout=20, verify=AUTHORITY)
    # Kubernetes answers 500 to a resourceVersion that is no number, and so does ours.
    if response.status_code >= 500 and "strconv.ParseUint" not in response.text:
        failures.append(f"{case.method} {case.formatted_path} {case.query}: {response.status_code} {response.text[:300]}")
    return response


def rules(schema):
    """The messages of all rules in a schema."""
    if isinstance(schema, dict):
        for rule in schema.get("x-kubernetes-validations", []):
            yield rule["message"]
        for value in schema.values():
            yield from rules(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from rules(value)


def distinct(schema, value, schemas):
    """Leaves one of the entries that a list of the schema may have only once."""
    while "$ref" in schema or "allOf" in schema:
        schema = schemas[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema["allOf"][0]
    if isinstance(value, dict):
        for name, part in schema.get("properties", {}).items():
            if name in value:
                value[name] = distinct(part, value[name], schemas)
    elif isinstance(value, list) and "items" in schema:
        value = [distinct(schema["items"], item, schemas) for item in value]
        keys = schema.get("x-kubernetes-list-map-keys")
        if schema.get("x-kubernetes-list-type") in ("map", "set"):
            by_key = {json.dumps([item.get(key) for key in keys] if keys else item): item for item in value}
            value = list(by_key.values())
    return value


def make_valid(kind, spec):
    """Puts in what a valid object has and a schema cannot state."""
    if kind == "Service":
        for container in spec["template"]["spec"]["containers"]:
            container["image"] = IMAGE
    elif kind == "Revision":
        spec["container"]["image"] = IMAGE
    elif kind == "Subnet":
        spec["ipv4CidrBlock"]["block"] = f"10.{next(numbers) % 256}.0.0/24"
    elif kind == "RevokedCredential":
        # One of the two, and neither that of a credential in use.
        spec.setdefault("certificateSerial", "0a")
        spec.pop("tokenID", None)
    elif kind == "VirtualMachine":
        for index, disk in enumerate(spec.get("diskRefs", [])):
            disk["bootFrom"] = index == 0
        for key in spec.get("osSettings", {}).get("ssh", {}).get("authorizedKeys", []):
            key["value"] = KEY


def creates(operation, document):
    codes, refusals = Counter(), {}
    schemas = document["components"]["schemas"]
    content = operation.definition.raw["requestBody"]["content"]["application/json"]["schema"]
    gvk = operation.definition.raw["x-kubernetes-group-version-kind"]
    kind = gvk["kind"]
    known = set(rules([it for name, it in schemas.items() if name.endswith(f".{kind}")]))

    def use(case):
        if not isinstance(case.body, dict):
            return
        case.body["apiVersion"], case.body["kind"] = f"{gvk['group']}/{gvk['version']}", kind
        name = f"made-{next(numbers)}"
        case.body["metadata"] = {"name": name}
        case.body.pop("status", None)
        case.query = {}
        if case.path_parameters and "namespace" in case.path_parameters:
            case.path_parameters["namespace"] = "demo"
        case.body = distinct(content, case.body, schemas)
        make_valid(kind, case.body["spec"] if "spec" in case.body else {})
        response = send(case)
        if response.status_code == 422 and any(rule in response.json()["message"] for rule in known):
            codes["breaks a rule"] += 1
            return
        codes[response.status_code] += 1
        if response.status_code >= 400:
            refusals[response.status_code] = response.json().get("message", "")[:300]
        elif "registrycredentials" not in operation.path and "accesstokens" not in operation.path:
            session.delete(f"{SERVER}{case.formatted_path}/{name}", timeout=20)

    generated(operation, GenerationMode.POSITIVE, CREATES, use)
    return codes, refusals


def others(operation):
    def use(case):
        # A watch would last, and a namespace that is deleted takes the others' place away.
        if isinstance(case.query, dict):
            case.query.pop("watch", None)
            if operation.method == "get":
                case.query["timeoutSeconds"] = "1"
        if case.path_parameters:
            if "namespace" in case.path_parameters:
                case.path_parameters["namespace"] = "demo"
            if "name" in case.path_parameters and len(str(case.path_parameters["name"])) % 2:
                case.path_parameters["name"] = "there"
        if case.body is NOT_SET and operation.method in ("post", "put", "patch"):
            return
        send(case)

    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
        generated(operation, mode, OTHERS, use)


def main():
    too_few, counted = [], 0
    for group in GROUPS:
        document = session.get(f"{SERVER}/openapi/v3/apis/{group}/v1alpha1", timeout=20).json()
        schema = schemathesis.openapi.from_dict(document)
        schema.config.update(base_url=SERVER)
        by_kind = defaultdict(list)
        for found in schema.get_all_operations():
            operation = found.ok()
            by_kind[operation.definition.raw["x-kubernetes-group-version-kind"]["kind"]].append(operation)
        for kind, operations in by_kind.items():
            for operation in operations:
                if operation.method == "post" and "requestBody" in operation.definition.raw:
                    codes, refusals = creates(operation, document)
                    total = sum(codes.values()) - codes["breaks a rule"]
                    accepted = codes[200] + codes[201]
                    print(f"{kind}: {accepted} of {total} valid creates accepted {dict(codes)}", flush=True)
                    counted += 1
                    if total < CREATES / 4 or accepted < ENOUGH * total:
                        too_few.append(f"{kind}: {accepted} of {total} accepted; {refusals}")
                if OTHERS:
                    try:
                        others(operation)
                    except Exception as error:  # noqa: BLE001 - what cannot be generated is said
                        print(f"{operation.method} {operation.path}: {type(error).__name__}: {str(error)[:200]}")
    for failure in failures[:20]:
        print("FAILED", failure)
    for shortage in too_few:
        print("TOO FEW", shortage)
    assert counted, "no kind has a create"
    print(f"verdict: {counted} kinds, {len(failures)} answers of 5xx, {len(too_few)} kinds with too few creates")
    sys.exit(1 if failures or too_few else 0)


main()
