-- Limits of a plan, of a kind of event, of one text; quotas with a cost; sets of limits that are switched on together.
alter table limits
  add column event_types text[] not null default '{}', -- empty: every type; 'orders.*' all that begin so
  add column tiers       text[] not null default '{}', -- of the reader's attribute "tier"; empty: whatever it is
  add column costs       jsonb not null default '{}',  -- by channel: as how many one delivery counts; 1 where absent
  add column every       int not null default 1 check (every between 1 and 60), -- so many minutes or hours a window
  add column reason      text check (reason in ('channel_not_allowed', 'spam', 'throttled', 'attention')),
  add column set_name    text check (length(set_name) <= 50),
  drop constraint limits_scope_check,
  add constraint limits_scope_check
    check (scope in ('tenant', 'channel', 'category', 'rule', 'user', 'user_channel', 'address', 'content')),
  add check (every = 1 or window_kind in ('minute', 'hour'));
create index limits_set on limits (tenant_id, set_name) where set_name is not null;

-- Takes everything a batch of plans decided to use, or nothing: raises CAR01 when a counter has no longer the room
-- that the decisions saw, or a claim is not what they saw (server/ledger/usage.ts).
--   counters: [{t: tenant, k: key, w: window start, n: how much, r: what may be counted already, or null}]
--   claims:   [{t: tenant, k: key, u: until, was: what the decision saw, or null, note: to remember, or null}]
-- Rows are taken in the order of their keys, so that two batches wait for each other in one direction only.
create or replace function take_usage(taken json) returns void language plpgsql as $$
declare
  wanted int;
  got int;
begin
  if json_array_length(taken -> 'counters') > 0 then
    with x as materialized (
      select * from json_to_recordset(taken -> 'counters') as x (t int, k text, w timestamptz, n bigint, r bigint)
    ), made as (
      insert into counters as c (tenant_id, key, window_at, count)
        select t, k, w, n from x order by t, k, w
      on conflict (tenant_id, key, window_at) do update set count = c.count + excluded.count
      returning tenant_id, key, window_at, count
    )
    -- Every row is locked by now, so what is compared here is what will be committed.
    select count(*) into got from made join x on t = tenant_id and k = key and w = window_at
      where made.count - n > r;
    if got > 0 then raise exception 'over the bound' using errcode = 'CAR01'; end if;
  end if;
  wanted := coalesce(json_array_length(taken -> 'claims'), 0);
  if wanted > 0 then
    insert into claims as c (tenant_id, key, until, was, note)
      select t, k, u, was, note from json_to_recordset(taken -> 'claims') as x (t int, k text, u timestamptz, was timestamptz, note text)
      order by t, k
    on conflict (tenant_id, key) do update set until = excluded.until, was = excluded.was, note = excluded.note
      where c.until = excluded.was;
    get diagnostics got = row_count;
    if got <> wanted then raise exception 'claimed meanwhile' using errcode = 'CAR01'; end if;
  end if;
end $$;
