-- Where every delivery stands, derived from what the ledger holds. Nothing is stored twice, so nothing can drift.

-- How far an outcome is; a receipt moves a delivery forward only (server/ledger/status.ts holds the same list, and
-- a test compares them). Codes: delivered sent failed bounced rejected unknown cancelled expired suppressed.
create function outcome_rank(outcome int2) returns int2
  language sql immutable parallel safe
  return (array[4, 2, 3, 5, 3, 1, 9, 9, 9]::int2[])[outcome + 1];

create function outcome_name(outcome int2) returns text
  language sql immutable parallel safe
  return (array['delivered', 'sent', 'failed', 'bounced', 'rejected', 'unknown', 'cancelled', 'expired', 'suppressed'])[outcome + 1];

-- The one derivation. In order: a row in jobs; a final attempt, or a receipt that goes further; in-app, which the
-- commit delivers; the batch. What has none of them is lost, which must never be.
create function delivery_status(
  channel int2, job_kind text, job_owner int, final boolean, outcome int2, receipt int2, batch_owner int
) returns text
  language sql immutable parallel safe
  return case
    when job_kind is not null then
      case when job_owner <> 0 then 'in_flight' when job_kind = 'held' then 'held' when job_kind = 'retry' then 'retrying' else 'backlog' end
    when final then
      outcome_name(case when receipt is not null and outcome_rank(receipt) > outcome_rank(outcome) then receipt else outcome end)
    when channel = 0 then 'delivered'
    when batch_owner <> 0 then 'in_flight'
    when batch_owner = 0 then 'backlog'
    else 'lost'
  end;

-- For one notification or a page of them: every part is found by primary key. Whole days are counted with joins
-- instead (server/ledger/audit.ts).
create view deliveries as
select n.tenant_id, n.id as notification_id, n.event_id, n.recipient_type, n.recipient_id, n.priority, c.channel, c.is_fallback,
  delivery_status(c.channel, j.kind, j.owner, a.final, a.outcome, s.outcome, b.owner) as status,
  coalesce(greatest(a.attempt, j.attempt), 0)::int as attempts,
  case when c.channel = 0 and a.at is null and j.kind is null then n.created_at else greatest(a.at, s.at) end as last_at,
  a.provider, a.message_id, a.code, a.error,
  j.kind as job_kind, j.reason as job_reason, coalesce(j.run_at, case when a.final is not true and b.owner = 0 then b.run_at end) as run_at,
  s.opened_at, s.clicked_at
from notifications n
cross join lateral (
  select get_byte(n.channels, i)::int2 as channel, false as is_fallback, i as place
  from generate_series(0, length(n.channels) - 1) i
  union all
  select f.channel, true, 256 + f.place
  from (select get_byte(n.fallback, i)::int2 as channel, i as place from generate_series(0, length(n.fallback) - 1) i) f
  where exists (select from jobs x where x.tenant_id = n.tenant_id and x.notification_id = n.id and x.channel = f.channel)
    or exists (select from attempts x where x.tenant_id = n.tenant_id and x.notification_id = n.id and x.channel = f.channel)
) c
left join jobs j on j.tenant_id = n.tenant_id and j.notification_id = n.id and j.channel = c.channel
left join lateral (
  select x.attempt, x.final, x.outcome, x.at, x.provider, x.message_id, x.code, x.error
  from attempts x
  where x.tenant_id = n.tenant_id and x.notification_id = n.id and x.channel = c.channel
  order by x.attempt desc, x.final desc, x.worker desc limit 1
) a on true
left join delivery_state s on s.tenant_id = n.tenant_id and s.notification_id = n.id and s.channel = c.channel
left join batches b on b.id = n.batch_id;
