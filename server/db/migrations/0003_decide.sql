-- What deciding needs to remember: claims and counters taken with a plan, and what is collected for a digest.

-- A name that is taken until an instant: a cooldown, a milestone told once, a content not to be repeated, the
-- earliest next moment of a minimum gap. Whoever plans compares and sets it in the transaction of the plan.
create table claims (
  tenant_id  int not null,
  key        text not null check (length(key) <= 500),
  until      timestamptz not null,
  was        timestamptz,                            -- what the last taker had seen: compared when it is taken
  primary key (tenant_id, key)
) with (fillfactor = 70);
create index claims_until on claims using brin (until);

-- Takes everything a batch of plans decided to use, or nothing: raises CAR01 when a counter would exceed its bound
-- or a claim is not what the decision saw. The caller reads again and decides again (server/ledger/usage.ts).
--   counters: [{t: tenant, k: key, w: window start, n: taken under the bound, f: taken past it, m: bound or null}]
--   claims:   [{t: tenant, k: key, u: until, was: what the decision saw, or null}]
-- Rows are taken in the order of their keys, so that two batches wait for each other in one direction only.
create function take_usage(taken json) returns void language plpgsql as $$
declare
  wanted int;
  got int;
begin
  select coalesce(json_array_length(taken -> 'counters'), 0) into wanted;
  if wanted > 0 then
    insert into counters as c (tenant_id, key, window_at, count)
      select t, k, w, n + f from json_to_recordset(taken -> 'counters') as x (t int, k text, w timestamptz, n bigint, f bigint, m bigint)
      where n = 0 or m is null or n <= m
      order by t, k, w
    on conflict (tenant_id, key, window_at) do update set count = c.count + excluded.count;
    get diagnostics got = row_count;
    if got <> wanted then raise exception 'over the bound' using errcode = 'CAR01'; end if;
    -- Every row is locked by now, so what is read here is what will be committed.
    perform from json_to_recordset(taken -> 'counters') as x (t int, k text, w timestamptz, n bigint, f bigint, m bigint)
      join counters c on c.tenant_id = t and c.key = k and c.window_at = w
      where n > 0 and m is not null and c.count - f > m limit 1;
    if found then raise exception 'over the bound' using errcode = 'CAR01'; end if;
  end if;
  select coalesce(json_array_length(taken -> 'claims'), 0) into wanted;
  if wanted > 0 then
    insert into claims as c (tenant_id, key, until, was)
      select t, k, u, was from json_to_recordset(taken -> 'claims') as x (t int, k text, u timestamptz, was timestamptz)
      order by t, k
    on conflict (tenant_id, key) do update set until = excluded.until, was = excluded.was
      where c.until = excluded.was;
    get diagnostics got = row_count;
    if got <> wanted then raise exception 'claimed meanwhile' using errcode = 'CAR01'; end if;
  end if;
end $$;

-- A digest gathers deliveries of one person on one channel under one key, and goes as one message when it closes.
-- Its items are deliveries like all others: planned, waiting in jobs as 'collected', and ended when it closes.
create table digests (
  tenant_id      int not null,
  id             uuid not null,
  recipient_type int2 not null,
  recipient_id   text not null,
  channel        int2 not null,
  key            text not null check (length(key) <= 500),
  rule_id        uuid,                               -- null: the person's own frequency, or an overflow
  reason         text not null,                      -- why it is collected, from the closed list
  state          text not null default 'open' check (state in ('open', 'closed', 'released', 'cancelled')),
  opened_at      timestamptz not null,
  closes_at      timestamptz not null,
  latest_at      timestamptz not null,               -- however many more come
  quiet_seconds  int,                                -- closes after so long without a new item
  max_items      int not null,
  items          int not null,
  spec           jsonb not null default '{}',        -- retain, template, what to do with a single item
  closed_at      timestamptz,
  event_id       uuid,                               -- the event that told it
  primary key (tenant_id, id)
) with (fillfactor = 70);
create unique index digests_open on digests (tenant_id, recipient_id, channel, key) where state = 'open';
create index digests_due on digests (closes_at) where state = 'open';
create index digests_list on digests (tenant_id, recipient_id, id);

-- The primary key says it: a delivery is an item of one digest.
create table digest_items (
  tenant_id       int not null,
  notification_id uuid not null,
  channel         int2 not null,
  digest_id       uuid not null,
  added_at        timestamptz not null,
  state           text not null default 'collected' check (state in ('collected', 'closed', 'released', 'cancelled', 'expired')),
  primary key (tenant_id, notification_id, channel)
) with (fillfactor = 70);
create index digest_items_digest on digest_items (tenant_id, digest_id, notification_id, channel);

-- collected: an item of a digest. escalation: goes only if something did not happen before (state says what).
alter table jobs drop constraint jobs_kind_check;
alter table jobs add constraint jobs_kind_check check (kind in ('held', 'retry', 'fallback', 'redrive', 'collected', 'escalation'));

create or replace function delivery_status(
  channel int2, job_kind text, job_owner int, final boolean, outcome int2, receipt int2, batch_owner int
) returns text
  language sql immutable parallel safe
  return case
    when job_kind is not null then
      case when job_owner <> 0 then 'in_flight' when job_kind in ('held', 'collected', 'escalation') then 'held' when job_kind = 'retry' then 'retrying' else 'backlog' end
    when final then
      outcome_name(case when receipt is not null and outcome_rank(receipt) > outcome_rank(outcome) then receipt else outcome end)
    when channel = 0 then 'delivered'
    when batch_owner <> 0 then 'in_flight'
    when batch_owner = 0 then 'backlog'
    else 'lost'
  end;
