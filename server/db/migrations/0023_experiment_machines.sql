-- Scanners look at pictures and links before anybody reads a mail: what is known to be one is nobody's step.
create or replace function note_experiment_engagement() returns trigger language plpgsql as $$
declare wanted int[];
begin
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
