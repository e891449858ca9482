-- What was said of late, to compare the next text with: sketches, never text (server/limits/sameness.ts).
alter table claims add column note text check (length(note) <= 10000);

-- As before, and writes the note of a claim with it.
create or replace function take_usage(taken json) returns void language plpgsql as $$
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
    insert into claims as c (tenant_id, key, until, was, note)
      select t, k, u, was, note from json_to_recordset(taken -> 'claims') as x (t int, k text, u timestamptz, was timestamptz, note text)
      order by t, k
    on conflict (tenant_id, key) do update set until = excluded.until, was = excluded.was, note = excluded.note
      where c.until = excluded.was;
    get diagnostics got = row_count;
    if got <> wanted then raise exception 'claimed meanwhile' using errcode = 'CAR01'; end if;
  end if;
end $$;
