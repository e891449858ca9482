-- The same as before, of arrays: reading them costs half of what JSON costs, and every plan that is counted pays it.
-- Takes everything a batch of plans decided to use, or nothing: raises CAR01 when a counter has no longer the room
-- that the decisions saw, or a claim is not what they saw (server/ledger/usage.ts). Times are milliseconds since 1970.
--   counters: tenant, key, window start, how much, what may be counted already or null
--   claims:   tenant, key, until, what the decision saw or null, note to remember or null
-- Rows are taken in the order of their keys, so that two batches wait for each other in one direction only.
create function take_usage(
  tenants int[], keys text[], windows int8[], amounts int8[], rooms int8[],
  claim_tenants int[], claim_keys text[], untils int8[], seen int8[], notes text[]
) returns void language plpgsql as $$
declare
  got int;
begin
  if cardinality(tenants) > 0 then
    with x as materialized (
      select t, k, to_timestamp(w::float8 / 1000) as w, n, r
      from unnest(tenants, keys, windows, amounts, rooms) as x (t, k, w, n, r)
    ), made as (
      insert into counters as c (tenant_id, key, window_at, count)
        select t, k, w, n from x order by t, k collate "C", w
      on conflict (tenant_id, key, window_at) do update set count = c.count + excluded.count
      returning tenant_id, key, window_at, count
    )
    -- Every row is locked by now, so what is compared here is what will be committed.
    select count(*) into got from made join x on t = tenant_id and k = key and w = window_at
      where made.count - n > r;
    if got > 0 then raise exception 'over the bound' using errcode = 'CAR01'; end if;
  end if;
  if cardinality(claim_tenants) > 0 then
    insert into claims as c (tenant_id, key, until, was, note)
      select t, k, to_timestamp(u::float8 / 1000), to_timestamp(s::float8 / 1000), note
      from unnest(claim_tenants, claim_keys, untils, seen, notes) as x (t, k, u, s, note)
      order by t, k collate "C"
    on conflict (tenant_id, key) do update set until = excluded.until, was = excluded.was, note = excluded.note
      where c.until = excluded.was;
    get diagnostics got = row_count;
    if got <> cardinality(claim_tenants) then raise exception 'claimed meanwhile' using errcode = 'CAR01'; end if;
  end if;
end $$;
drop function take_usage(json);

-- Keys are compared byte by byte, whatever language the database speaks: they are never sorted for anybody to read.
alter table counters alter column key type text collate "C";
alter table claims alter column key type text collate "C";
