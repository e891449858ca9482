-- Where nothing runs, which is nearly always, a look at an empty table is all that a mark or a receipt pays.
create or replace function note_experiment_receipts() returns trigger language plpgsql as $$
declare wanted int[];
begin
  if not exists (select from experiments where status = 'running' or stopped_at > now() - interval '30 days') then
    return null;
  end if;
  select array_agg(t) into wanted from (select distinct tenant_id as t from new_rows) d where experiments_count(t);
  if wanted is null then return null; end if;
  perform count_experiment_steps(array_agg(tenant_id), array_agg(notification_id), array_agg(step))
  from (
    select tenant_id, notification_id, (
      case outcome when 0 then 3 when 2 then 64 when 3 then 64 when 4 then 64 else 0 end
      | case when opened_at is null then 0 else 15 end
      | case when clicked_at is null then 0 else 31 end)::int2 as step
    from new_rows where tenant_id = any (wanted)
  ) s where step <> 0 having count(*) > 0;
  return null;
end $$;

create or replace function note_experiment_engagement() returns trigger language plpgsql as $$
declare wanted int[];
begin
  if not exists (select from experiments where status = 'running' or stopped_at > now() - interval '30 days') then
    return null;
  end if;
  select array_agg(t) into wanted from (select distinct tenant_id as t from new_rows) d where experiments_count(t);
  if wanted is null then return null; end if;
  perform count_experiment_steps(array_agg(tenant_id), array_agg(notification_id), array_agg(step))
  from (
    select tenant_id, notification_id,
      (case kind when 'dismissed' then 7 when 'opened' then 15 when 'clicked' then 31 when 'acknowledged' then 47 else 0 end)::int2 as step
    from new_rows where tenant_id = any (wanted) and not detail ? 'machine'
  ) s where step <> 0 having count(*) > 0;
  return null;
end $$;

create or replace function note_experiment_feed() returns trigger language plpgsql as $$
declare wanted int[];
begin
  if not exists (select from experiments where status = 'running' or stopped_at > now() - interval '30 days') then
    return null;
  end if;
  select array_agg(t) into wanted from (select distinct tenant_id as t from new_rows) d where experiments_count(t);
  if wanted is null then return null; end if;
  perform count_experiment_steps(array_agg(tenant_id), array_agg(notification_id), array_agg(step))
  from (
    select tenant_id, notification_id, case when read_at is null then 7 else 15 end::int2 as step
    from new_rows
    where tenant_id = any (wanted) and (seen_at is not null or read_at is not null) and notification_id is not null
  ) s having count(*) > 0;
  return null;
end $$;
