"""Syncs: a segment or a set of profiles at a destination that follows it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from heap_integration.assets.charts import bars
from heap_integration.assets.family import owners
from heap_integration.assets.report import counts, reasons_table, table
from heap_integration.environment import Environment, MissingSecret, ProfileSync, SegmentSync
from heap_integration.resources import Credentials, StoreResource, destination_key
from heap_integration.routes import Route

if TYPE_CHECKING:
    from heap_integration.hub import Hub
    from heap_integration.segments.identity import Match
    from heap_integration.segments.sync import Preview, RunOptions, SyncReport
    from heap_integration.warehouse.memberships import PastRun

REJECTED_SHOWN = 20


class SyncConfig(dg.Config):
    """What one run of a sync does otherwise than usual."""

    preview: bool = False
    confirm: bool = False
    full: bool = False
    only: str = ""


def family(route: Route) -> str:
    """Return the part of a sync's key that says what goes where."""
    return f"{route.destination}_{'profiles' if isinstance(route.sync, ProfileSync) else 'segments'}"


def build_sync(env: Environment, route: Route, source: dg.AssetKey) -> dg.AssetsDefinition:
    """Return the asset that keeps a destination equal to a segment or a set of profiles."""
    settings = env.destinations.named()[route.destination]
    credentials = destination_key(route.destination)
    hooks = {webhook.name for webhook in env.destinations.webhooks}
    what = "properties of each that changed" if isinstance(route.sync, ProfileSync) else "who entered or left"

    @dg.asset(
        key=[env.name, family(route), route.sync.slug],
        deps=[source],
        group_name=f"{env.name}_segments",
        kinds={route.destination, "webhook"} if route.destination in hooks else {route.destination},
        owners=owners(env, "segments"),
        pool=f"{env.name}_{route.destination}",
        code_version="2",
        output_required=False,
        description=f"“{route.sync.name}” in {settings.title}: only {what} since the last acknowledgement is sent.\n\n"
        "Run config: `preview` shows what would be sent; `confirm` passes a guard; `full` sends everything again; "
        "`only` tries a single identity.",
        tags={"environment": env.name},
        retry_policy=dg.RetryPolicy(max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL),
        required_resource_keys={"store", credentials},
    )
    def synced(context: dg.AssetExecutionContext, config: SyncConfig) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]
        from heap_integration.switches import sync_goes_on
        from heap_integration.syncs import RouteSync

        store: StoreResource = context.resources.store
        given: Credentials = getattr(context.resources, credentials)
        with store.hub(env, given.variables(settings)) as hub:
            work = RouteSync(hub, route)
            with _told_as_failures():
                if config.preview:
                    metadata = _preview_metadata(work.preview(_options(config)))
                    context.log_event(dg.AssetObservation(asset_key=context.asset_key, metadata=metadata))
                    return
                goes_on = sync_goes_on(env, route.sync, route.destination)
                report, match = work.run(_options(config), go_on=goes_on)
            context.log.info(
                f"{report.added} added, {report.updated} updated, {report.removed} removed, "
                f"{report.rejected} refused of {report.planned} changes"
            )
            metadata = _metadata(hub, route, report, match)
            if config.only:
                # The others still wait: that is no state to be checked, nor one to build on.
                context.log_event(dg.AssetObservation(asset_key=context.asset_key, metadata=metadata))
                return
            yield dg.MaterializeResult(metadata=metadata)

    return synced


def build_sync_checks(env: Environment, route: Route) -> dg.AssetChecksDefinition:
    """Return the checks of a sync: what was acknowledged is what is wanted, and enough of it is known there."""
    key = dg.AssetKey([env.name, family(route), route.sync.slug])
    # A table may have changed since the sync looked; segments and audiences wait for a run of their own.
    still = isinstance(route.sync, SegmentSync) and route.sync.kind != "table"
    severity = dg.AssetCheckSeverity.ERROR if still else dg.AssetCheckSeverity.WARN
    smallest = route.sync.smallest_match_rate

    @dg.multi_asset_check(
        name=f"{'_'.join(key.path)}_checks",
        specs=[
            dg.AssetCheckSpec(
                "baseline_is_source",
                asset=key,
                blocking=still,
                description="Acknowledged is what is wanted, but for what the destination refused or is pending.",
            ),
            dg.AssetCheckSpec(
                "match_rate",
                asset=key,
                description=f"At least {smallest:.0%} of the source's identities have a user at the destination.",
            ),
        ],
    )
    def checked(store: StoreResource) -> Iterator[dg.AssetCheckResult]:
        from heap_integration.syncs import RouteSync

        with store.hub(env) as hub:
            work = RouteSync(hub, route)
            apart, match = work.apart(), work.known()
        yield dg.AssetCheckResult(
            passed=apart.explained,
            check_name="baseline_is_source",
            severity=severity,
            metadata=counts(**apart.numbers),
        )
        yield dg.AssetCheckResult(
            passed=match.rate >= smallest,
            check_name="match_rate",
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"match rate": match.rate, **_match_metadata(match)},
        )

    return checked


def _options(config: SyncConfig) -> "RunOptions":
    from heap_integration.segments.sync import RunOptions

    return RunOptions(confirm=config.confirm, full=config.full, only=config.only or None)


@contextmanager
def _told_as_failures() -> Iterator[None]:
    """Turn what stops a sync into failures in plain words, tried again only where that can help."""
    from heap_integration.delivery.engine import DeliveryStopped
    from heap_integration.delivery.records import BatchRejected, NotAuthorised

    try:
        yield
    except DeliveryStopped as stopped:
        raise dg.Failure(
            f"{stopped}. What was not acknowledged goes out with the next sync.",
            metadata=counts(sent=stopped.tally.accepted, rejected=stopped.tally.rejected),
            allow_retries=not isinstance(stopped.__cause__, NotAuthorised | BatchRejected),
        ) from stopped
    except (MissingSecret, ValueError) as wrong:
        raise dg.Failure(str(wrong), allow_retries=False) from None


def _metadata(hub: "Hub", route: Route, report: "SyncReport", match: "Match") -> dict[str, dg.MetadataValue]:
    from heap_integration.warehouse.memberships import rejections, sync_history

    with hub.warehouse.read() as con:
        history = sync_history(con, route.name)
        refused = rejections(con, route.name, REJECTED_SHOWN)
    metadata = {
        **counts(
            row_count=report.held,
            read=report.read,
            sent=report.sent,
            unchanged=report.unchanged,
            rejected=report.rejected,
            suppressed=report.suppressed,
            pending=report.pending,
            added=report.added,
            updated=report.updated,
            removed=report.removed,
            wanted=report.wanted,
        ),
        **_match_metadata(match),
        "match rate": dg.MetadataValue.float(round(match.rate, 4)),
        "size": bars("acknowledged there, by sync", [(_moment(run), run.held) for run in history]),
        "changes": bars("changes by sync", [(_moment(run), run.added + run.updated + run.removed) for run in history]),
    }
    if history and (changed := history[-1].source_changed_at):
        moment = changed.replace(tzinfo=UTC)
        metadata["source changed"] = dg.MetadataValue.timestamp(moment)
        metadata["source age"] = dg.MetadataValue.text(_age(moment))
    if report.tally.reasons:
        metadata["reasons"] = reasons_table(report.tally.reasons)
    if refused:
        metadata["rejected sample"] = table(("identity", "reason"), [(each.identity, each.reason) for each in refused])
    return metadata


def _match_metadata(match: "Match") -> dict[str, dg.MetadataValue]:
    return counts(
        members=match.members,
        matched=match.mapped - match.unknown_there,
        unknown_there=match.unknown_there,
        unmapped=match.unmapped,
        ambiguous=match.ambiguous,
        placeholders=match.placeholders,
        opted_out=match.opted_out,
    )


def _preview_metadata(preview: "Preview") -> dict[str, dg.MetadataValue]:
    from heap_integration.syncs import sample_words

    metadata = counts(
        would_add=preview.added,
        would_update=preview.updated,
        would_remove=preview.removed,
        would_repeat=preview.again,
        unchanged=preview.unchanged,
        wanted=preview.wanted,
        held=preview.held,
    )
    if preview.stopped:
        metadata["guard"] = dg.MetadataValue.text(preview.stopped)
    if preview.samples:
        rows = [(each.action.name.lower(), each.identity, sample_words(each)) for each in preview.samples]
        metadata["sample"] = table(("change", "identity", "what"), rows)
    return metadata


def _moment(run: "PastRun") -> str:
    return run.finished_at.strftime("%m-%d %H:%M")


def _age(moment: datetime) -> str:
    minutes = max(int((datetime.now(UTC) - moment).total_seconds() // 60), 0)
    hours, rest = divmod(minutes, 60)
    days, left = divmod(hours, 24)
    return f"{days} d {left} h" if days else f"{hours} h {rest} min" if hours else f"{rest} min"
