"""What an environment's YAML may say, and how it is told what it says wrong."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from heap_integration.environment import (
    EnvironmentProblems,
    MissingSecret,
    Secret,
    load_environment,
    load_environments,
    missing_variables,
    read_variables,
)

GOOD = """
    heap:
      app_id: "10"
      segment_sync: {webhook_secret: {env: HEAP_SEGMENT_SYNC_SECRET}}
    segments:
      - {name: Power Users!, from: heap, sync_to: [userflow], every: 15 minutes}
    destinations:
      userflow: {api_key: {env: USERFLOW_API_KEY}}
"""
SHIPPED = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _in_an_empty_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(text: str, name: str = "production", variables: str | None = None) -> Path:
    """Write an environment into the project and return its folder."""
    folder = Path("environments", name)
    folder.mkdir(parents=True)
    (folder / "environment.yaml").write_text(dedent(text).lstrip("\n"))
    if variables is not None:
        (folder / ".env").write_text(variables)
    return folder


def mistakes(text: str, name: str = "production") -> list[str]:
    """Return what is wrong with an environment, without the name of its file."""
    with pytest.raises(EnvironmentProblems) as caught:
        load_environment(write(text, name))
    file = f"environments/{name}/environment.yaml:"
    lines = str(caught.value).splitlines()
    assert all(line.startswith(file) for line in lines)
    return [line.removeprefix(file) for line in lines]


def mistakes_together() -> list[str]:
    with pytest.raises(EnvironmentProblems) as caught:
        load_environments(Path())
    return str(caught.value).splitlines()


def test_an_environment_is_read_with_its_defaults_and_absolute_paths(tmp_path: Path) -> None:
    environment = load_environment(write(GOOD))

    assert environment.name == "production"
    assert environment.heap.url == "https://heapanalytics.com"
    assert environment.own_tables == f"duckdb:///{tmp_path}/data/production.duckdb"
    assert environment.store == f"sqlite:///{tmp_path}/data/production.db"
    assert environment.landing == f"{tmp_path}/data/production/landing"
    assert [(segment.slug, segment.cron) for segment in environment.segments] == [("power_users", "*/15 * * * *")]
    assert environment.secrets() == {
        "heap.segment_sync.webhook_secret": Secret(env="HEAP_SEGMENT_SYNC_SECRET"),
        "destinations.userflow.api_key": Secret(env="USERFLOW_API_KEY"),
    }


@pytest.mark.parametrize(
    "given",
    [
        "10",
        "'10'",
        "https://heapanalytics.com/app/env/10/dashboard?range=7d",
        "https://eu.heap.io/app/env/10",
    ],
)
def test_the_app_id_may_be_the_address_of_the_environment_in_heap(given: str) -> None:
    assert load_environment(write(f"heap: {{app_id: {given}}}")).heap.app_id == "10"


def test_every_mistake_is_told_with_its_line_its_field_and_what_is_allowed() -> None:
    assert mistakes(
        """
        name: prodution
        heap:
          app_id: https://elsewhere.com/app/env/10
          region: uk
          api_kee: {env: HEAP_API_KEY}
        days_per_run: 0
        segments:
          - name: Power users
            from: heap
            sync_to: [userflow, braze]
          - {name: power-users, from: heap, sync_to: userflow}
        destinations:
          userflow: {}
        """
    ) == [
        "1: name: must be production, the name of the folder; or leave it out",
        "3: heap.app_id: must be the digits of Heap's app id, or Heap's address while that environment is "
        "open (https://heapanalytics.com/app/env/<id>/...)",
        "4: heap.region: must be 'us' or 'eu'",
        "5: heap.api_kee: unknown key; did you mean api_key? allowed: app_id, api_key, region, plan, "
        "base_url, segment_sync, events_per_minute, events_per_minute_per_identity, live_share, account_id_property",
        "6: days_per_run: must be greater than or equal to 1 or must be 'all'",
        "9: segments[0].from: needs heap.segment_sync, which is missing",
        "10: segments[0].sync_to[1]: no such destination under destinations; configured: userflow",
        "11: segments[1].from: needs heap.segment_sync, which is missing",
        "11: segments[1].name: becomes power_users, as segments[0] does: each needs a name or key of its own",
        "11: segments[1].sync_to: must be a list, such as [a, b]",
        "13: destinations.userflow.api_key: is missing",
    ]


def test_what_a_sync_asks_of_a_destination_must_be_possible_there() -> None:
    assert mistakes(
        """
        heap: {app_id: "10"}
        segments:
          - {name: Members, from: {table: marts.members}, sync_to: [userpilot]}
          - {name: By mail, from: audiences/mail.txt, sync_to: [hook], map_users_by: {column: mail}}
          - {name: "???", from: a.yaml, sync_to: [hook]}
          - {name: Guarded, from: a.yaml, sync_to: [hook], guards: {largest_removal_percent: 120}}
        profiles:
          - name: Scores
            table: marts.scores
            identity: user_id
            of: accounts
            fields: {score: {to: pql, operation: add}, plan: {to: plan, when_null: ignore}}
            map_users_by: email
            sync_to: [customerio, userpilot]
            create: true
        destinations:
          userpilot: {api_key: {env: USERPILOT_API_KEY}}
          customerio: {site_id: {env: SITE}, api_key: {env: KEY}, app_api_key: {env: APP}}
          webhooks:
            - {name: hook, url: https://hooks.example, secret: {env: HOOK}}
            - {name: userpilot, url: https://hooks.example, secret: {env: HOOK}}
        """
    ) == [
        "3: segments[0].from.identity: is missing",
        "3: segments[0].sync_to[0]: Userpilot makes a user of every id it is sent and can't be asked first: "
        "write create: true",
        "4: segments[1].from: must be heap, a file with an audience's definition (audiences/name.json or .yaml), "
        "or {table: schema.table, identity: column}",
        "4: segments[1].map_users_by.column: unknown key; allowed: property",
        "4: segments[1].map_users_by.property: is missing",
        "5: segments[2].name: has neither a letter a-z nor a digit: give it a key that has",
        "6: segments[3].guards.largest_removal_percent: must be less than or equal to 100",
        "12: profiles[0].fields.plan.when_null: must be 'skip', 'clear' or 'send'",
        "13: profiles[0].map_users_by: accounts have no e-mail address and no user property: map them by identity or "
        "by a table",
        "14: profiles[0].sync_to[0]: Customer.io knows no operation add; allowed: set",
        "14: profiles[0].sync_to[1]: Userpilot finds users by its user id only: map_users_by can't be email",
        "14: profiles[0].sync_to[1]: Userpilot knows no operation add; allowed: set",
        "21: destinations.webhooks[1].name: is the name of destinations.userpilot: each needs its own",
    ]


def test_a_destination_that_is_no_name_is_told_of_as_that() -> None:
    assert mistakes(GOOD.replace("sync_to: [userflow]", "sync_to: [[userflow]]")) == [
        "5: segments[0].sync_to: must not be empty",
        "5: segments[0].sync_to[0]: must be text",
    ]


@pytest.mark.parametrize("address", ["https://h:99999", "https://h..io", f"https://{'a' * 64}.io", "https://a b.io"])
def test_an_address_to_which_nothing_can_connect_is_refused(address: str) -> None:
    settings = f'{{api_key: {{env: USERFLOW_API_KEY}}, base_url: "{address}"}}'
    assert mistakes(GOOD.replace("{api_key: {env: USERFLOW_API_KEY}}", settings)) == [
        "7: destinations.userflow.base_url: must be like https://host, without a user or a password"
    ]


def test_a_destination_that_nobody_configured_is_told_of() -> None:
    assert mistakes(GOOD.replace("destinations:", "owners:").replace("{api_key: {env: USERFLOW_API_KEY}}", "me")) == [
        "5: segments[0].sync_to[0]: no such destination under destinations; none is configured"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "heap: {app_id: 10, api_key: hunter2}",
            "1: heap.api_key: a secret is the name of a variable: {env: NAME}",
        ),
        (
            "heap: {app_id: 10, api_key: {env: hunter2}}",
            "1: heap.api_key: a secret is the name of a variable: {env: NAME}",
        ),
        (
            "heap: {app_id: 10}\nstore: postgresql://hub:hunter2@db/hub",
            "2: store: has a password in it: put the whole address into a variable: {env: NAME}",
        ),
        ("heap: {app_id: 10, api_key: *hunter2}", "1: not valid YAML: found undefined alias …"),
        ("heap: {api_key: 'hunter2'}\nheap: {api_key: 'hunter2'}", "2: heap: stands there twice"),
        ("heap: {app_id: 10}\n  api_key: 'hunter2'", "2: not valid YAML: "),
    ],
)
def test_a_secret_that_stands_in_the_yaml_is_refused_and_never_repeated(text: str, expected: str) -> None:
    told = mistakes(text)

    assert told[0].startswith(expected)
    assert "hunter2" not in " ".join(told)


def test_two_environments_that_share_anything_are_refused_together() -> None:
    shared = "\nwarehouse: duckdb:///data/hub.duckdb\nstore: {}\nlanding: {}\n"
    write(
        dedent(GOOD) + shared.format("sqlite:///data/hub.db", "data/in"),
        "production",
        "USERFLOW_API_KEY=hunter2",
    )
    write(
        dedent(GOOD) + shared.format("sqlite:///data/../data/hub.db", "./data/in"),
        "staging",
        "USERFLOW_API_KEY='hunter2'",
    )

    assert mistakes_together() == [
        f"environments/staging/environment.yaml:{place}: environment production has the same {what}: each needs its own"
        for place, what in [
            ("2: heap.app_id", "app id"),
            ("9: warehouse", "warehouse"),
            ("11: landing", "landing folder"),
            ("10: store", "store"),
            ("7: destinations.userflow.api_key.env", "Userflow key"),
        ]
    ]


def test_the_mistakes_of_all_environments_are_told_at_once() -> None:
    write("heap: {app_id: x}", "production")
    write("heep: {app_id: 10}", "staging")

    assert [line.split(": ")[0] for line in mistakes_together()] == [
        "environments/production/environment.yaml:1",
        "environments/staging/environment.yaml:1",
        "environments/staging/environment.yaml:1",
    ]


def test_a_variable_comes_from_the_environments_own_file_before_the_process() -> None:
    environment = load_environment(write(GOOD, variables="USERFLOW_API_KEY=own\nOTHER=x\n"))
    process = {"USERFLOW_API_KEY": "process", "HEAP_SEGMENT_SYNC_SECRET": "", "HEAP_API_KEY": "not named"}

    variables = read_variables(environment, process)

    assert variables == {"USERFLOW_API_KEY": "own"}
    assert [str(problem) for problem in missing_variables(environment, variables)] == [
        "environments/production/environment.yaml:3: heap.segment_sync.webhook_secret.env: the variable "
        "HEAP_SEGMENT_SYNC_SECRET is not set: set it in environments/production/.env or in the process's "
        "environment"
    ]
    with pytest.raises(MissingSecret, match="HEAP_SEGMENT_SYNC_SECRET is not set"):
        environment.secrets()["heap.segment_sync.webhook_secret"].value(variables)


def test_what_is_switched_off_needs_no_variable() -> None:
    off = load_environment(write(GOOD.replace("USERFLOW_API_KEY}", "USERFLOW_API_KEY}, enabled: false")))

    assert [problem.field for problem in missing_variables(off, {})] == ["heap.segment_sync.webhook_secret.env"]


def test_the_shipped_environments_are_in_order_and_their_examples_name_every_variable() -> None:
    environments = load_environments(SHIPPED)

    assert [environment.name for environment in environments] == ["production", "sandbox", "staging"]
    for environment in environments:
        example = (environment.file.parent / ".env.example").read_text().splitlines()
        named = {line.split("=")[0] for line in example if line and not line.startswith("#")}
        assert named == {secret.env for secret in environment.secrets().values()}


def test_sources_have_names_keys_and_secrets_of_their_own() -> None:
    assert mistakes(
        """\
        heap: {app_id: "1"}
        sources:
          clients:
            - {name: web, write_key: {env: WEB_KEY}}
            - {name: userpilot, write_key: {env: APP_KEY}}
            - {name: "my web", write_key: WEB}
          files:
            - {name: web, path: "s3://bucket/{name}/*.parquet"}
          tables:
            - {name: orders, table: main.orders, cursor: updated_at}
        privacy: {action: hash}
        """,
    ) == [
        "5: sources.clients[1].name: is the name of sources.userpilot: each needs its own",
        "6: sources.clients[2].name: must hold letters, digits and underscores only",
        "6: sources.clients[2].write_key: a secret is the name of a variable: {env: NAME}",
        "8: sources.files[0].name: is the name of sources.clients[0]: each needs its own",
        "10: sources.tables[0].mapping: is missing",
        "11: privacy.action: needs privacy.salt, a secret without which a hash is undone by trying",
    ]


def test_the_warehouse_is_told_by_an_address_or_by_a_type_with_what_that_needs() -> None:
    assert mistakes(
        """
        heap: {app_id: "10"}
        warehouse: {type: postgres, hots: db, port: 99999, database: analytics, user: hub}
        heap_connect:
          s3: {bucket: "s3://heap-rs3-acme", lost_columns: hide}
          tables: {schema: main_production}
        exports:
          - {name: bi, to: {type: oracle}}
          - {name: crm, table: "a;b", to: {type: snowflake, account: acme, user: hub, database: a, password: hunter2}}
        models:
          funnels: [{name: short, steps: [Signup]}, {name: twice, steps: [Signup, Signup]}]
        """
    ) == [
        "2: warehouse.host: is missing",
        "2: warehouse.hots: unknown key; did you mean host? allowed: schema_prefix, type, host, port, database, user, "
        "password, sslmode",
        "2: warehouse.port: must be less than 65536",
        "4: heap_connect.s3.lost_columns: must be 'keep' or 'drop'",
        "5: heap_connect.tables: Heap's data comes by dumps (s3) or stands in the warehouse (tables): "
        "leave one of them out",
        "7: exports[0].to: must be duckdb:///path/to/file.duckdb, or {type: ...} with a type of postgres, bigquery, "
        "snowflake, redshift, synapse",
        "8: exports[1].table: must hold letters, digits and underscores only and begin with neither a digit nor _hub_",
        "8: exports[1].to.password: a secret is the name of a variable: {env: NAME}",
        "8: exports[1].to.warehouse: is missing",
        "10: models.funnels[0].steps: must name two events or more",
        "10: models.funnels[1].steps: names a step twice: each step is another event",
    ]


def test_models_of_heaps_events_need_heaps_data() -> None:
    assert mistakes('heap: {app_id: "10"}\nmodels: {events_from: heap_connect}\n') == [
        "2: models.events_from: needs heap_connect.s3 or heap_connect.tables"
    ]


def test_each_funnel_has_a_name_of_its_own() -> None:
    text = """
        heap: {app_id: "10"}
        models:
          funnels: [{name: buy, steps: [A, B]}, {name: try, steps: [A, C]}, {name: buy, steps: [A, D]}]
        """
    assert mistakes(text) == ["3: models.funnels[2].name: is the name of funnels[0]: each needs its own"]


def test_environments_in_one_database_have_schemas_of_their_own_unless_they_are_told_the_same() -> None:
    text = """
        heap: {{app_id: "{number}"}}
        warehouse: {{type: postgres, host: DB, database: analytics, user: hub{more}}}
        heap_connect: {{s3: {{bucket: "s3://heap-rs3-acme"}}}}
    """
    for number, name in enumerate(("production", "staging")):
        write(text.format(number=number, more=""), name)
    assert mistakes_together() == [
        "environments/staging/environment.yaml:3: heap_connect.s3.bucket: environment production has the same "
        "bucket of Heap Connect: each needs its own"
    ]

    for number, name in enumerate(("production", "staging")):
        file = Path("environments", name, "environment.yaml")
        file.write_text(dedent(text.format(number=number, more=", schema_prefix: heap")).replace("acme", name))
    assert mistakes_together() == [
        "environments/staging/environment.yaml:3: warehouse: environment production has the same warehouse: "
        "each needs its own"
    ]
