-- Ways of saying something, told to different people, and what they did about it.
create table experiments (
  tenant_id     int not null references tenants,
  id            uuid not null,
  name          text not null check (length(name) between 1 and 255),
  description   text not null default '' check (length(description) <= 1000),
  template_id   uuid references templates,           -- of what: a template, or a rule
  rule_id       uuid references rules,
  status        text not null default 'draft' check (status in ('draft', 'running', 'stopped')),
  metric        text not null check (metric in ('delivered', 'seen', 'opened', 'clicked', 'acted')),
  variants      jsonb not null,                      -- [{name, weight, revision, templateId, channels}], the control first
  holdout       float8 not null default 0 check (holdout >= 0 and holdout < 1),
  holdout_gets  text not null default 'nothing' check (holdout_gets in ('nothing', 'control')),
  starts_at     timestamptz,
  ends_at       timestamptz,
  started_at    timestamptz,
  stopped_at    timestamptz,
  winner        text,
  reweighted    boolean not null default false,      -- its shares were changed while it ran
  revision      int not null default 1,
  created_at    timestamptz not null,
  updated_at    timestamptz not null,
  deleted_at    timestamptz,
  primary key (tenant_id, id),
  check ((template_id is null) <> (rule_id is null)),
  check ((status = 'draft') = (started_at is null)),
  check ((status = 'stopped') = (stopped_at is not null)),
  check (winner is null or status = 'stopped'),
  check (ends_at > starts_at)
);
create unique index experiments_name on experiments (tenant_id, name) where deleted_at is null;
-- At most one at a time of each thing: two would not know whose doing a click was.
create unique index experiments_template on experiments (tenant_id, template_id) where status = 'running';
create unique index experiments_rule on experiments (tenant_id, rule_id) where status = 'running';

create trigger changes_insert after insert on experiments referencing new table as new_rows for each statement execute function note_change('experiment', 'id');
create trigger changes_update after update on experiments referencing new table as new_rows for each statement execute function note_change('experiment', 'id');
create trigger changes_delete after delete on experiments referencing old table as old_rows for each statement execute function note_change('experiment', 'id');

alter table notifications add column experiment_id uuid, add column variant text;

-- Each person once: the first variant they were told in, and which steps they reached since. Without names: 16 bytes
-- of a hash. Rates are of people, as people are what was split: messages to one person are not independent.
create table experiment_people (
  tenant_id     int not null,
  experiment_id uuid not null,
  person        bytea not null check (length(person) = 16),
  variant       text not null,
  reached       int2 not null default 0,             -- bits, see server/ledger/experiments.ts
  before        int2,                                -- what it was before the last change; null: nothing, it is new
  primary key (tenant_id, experiment_id, person)
) with (fillfactor = 80);

-- Only ever appended to, so that no two transactions wait for each other; housekeeping adds rows up. Whoever reads
-- adds up the rest.
create table experiment_counts (
  tenant_id     int not null,
  experiment_id uuid not null,
  variant       text not null,
  people        bigint not null,
  sent          bigint not null,
  delivered     bigint not null,
  seen          bigint not null,
  opened        bigint not null,
  clicked       bigint not null,
  acted         bigint not null,
  failed        bigint not null
);
create index experiment_counts_of on experiment_counts (tenant_id, experiment_id);

-- Whether anything that is told of this tenant's messages can still count: while one runs, and 30 days after.
create function experiments_count(tenant int) returns boolean language sql stable as $$
  select exists (
    select from experiments e where e.tenant_id = tenant
      and (e.status = 'running' or (e.status = 'stopped' and e.stopped_at > now() - interval '30 days'))
  )
$$;

-- Marks the steps that people reached, and counts each once for each person. In the order of the key, for all alike:
-- writers that meet wait in one direction only.
create function count_experiment_people(
  tenants int[], experiment_ids uuid[], variants text[], recipient_types int2[], recipient_ids text[], steps int2[]
) returns void language sql as $$
  with said as (
    select s.tenant_id, s.experiment_id, min(s.variant) as variant, bit_or(s.step) as step,
      substr(sha256(convert_to(s.recipient_type || ':' || s.recipient_id, 'UTF8')), 1, 16) as person
    from unnest(tenants, experiment_ids, variants, recipient_types, recipient_ids, steps)
      as s (tenant_id, experiment_id, variant, recipient_type, recipient_id, step)
    join experiments e on e.tenant_id = s.tenant_id and e.id = s.experiment_id and e.deleted_at is null
     and (e.status = 'running' or e.stopped_at > now() - interval '30 days')
    group by 1, 2, 5
  ), moved as (
    insert into experiment_people as p (tenant_id, experiment_id, person, variant, reached)
    select tenant_id, experiment_id, person, variant, step from said order by 1, 2, 3
    on conflict (tenant_id, experiment_id, person) do update set before = p.reached, reached = p.reached | excluded.reached
      where p.reached | excluded.reached <> p.reached
    returning p.tenant_id, p.experiment_id, p.variant, p.before is null as fresh,
      p.reached & ~coalesce(p.before, 0::int2) as step
  )
  insert into experiment_counts
    (tenant_id, experiment_id, variant, people, sent, delivered, seen, opened, clicked, acted, failed)
  select tenant_id, experiment_id, variant, count(*) filter (where fresh),
    count(*) filter (where step & 1 <> 0), count(*) filter (where step & 2 <> 0),
    count(*) filter (where step & 4 <> 0), count(*) filter (where step & 8 <> 0),
    count(*) filter (where step & 16 <> 0), count(*) filter (where step & 32 <> 0),
    count(*) filter (where step & 64 <> 0)
  from moved group by 1, 2, 3
$$;

-- The same by notification: those of no experiment are passed over.
create function count_experiment_steps(tenants int[], notification_ids uuid[], steps int2[])
returns void language sql as $$
  select count_experiment_people(
    array_agg(n.tenant_id), array_agg(n.experiment_id), array_agg(n.variant), array_agg(n.recipient_type),
    array_agg(n.recipient_id), array_agg(s.step))
  from unnest(tenants, notification_ids, steps) as s (tenant_id, id, step)
  join notifications n on n.tenant_id = s.tenant_id and n.id = s.id
  where n.experiment_id is not null
  having count(*) > 0
$$;

-- What comes back, whoever writes it down. A tenant without experiments costs one look at a small table.
create function note_experiment_receipts() returns trigger language plpgsql as $$
declare wanted int[];
begin
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
create trigger count_experiments_insert after insert on delivery_state referencing new table as new_rows for each statement execute function note_experiment_receipts();
create trigger count_experiments_update after update on delivery_state referencing new table as new_rows for each statement execute function note_experiment_receipts();

create function note_experiment_engagement() returns trigger language plpgsql as $$
declare wanted int[];
begin
  select array_agg(t) into wanted from (select distinct tenant_id as t from new_rows) d where experiments_count(t);
  if wanted is null then return null; end if;
  perform count_experiment_steps(array_agg(tenant_id), array_agg(notification_id), array_agg(step))
  from (
    select tenant_id, notification_id,
      (case kind when 'dismissed' then 7 when 'opened' then 15 when 'clicked' then 31 when 'acknowledged' then 47 else 0 end)::int2 as step
    from new_rows where tenant_id = any (wanted)
  ) s where step <> 0 having count(*) > 0;
  return null;
end $$;
create trigger count_experiments after insert on engagement referencing new table as new_rows for each statement execute function note_experiment_engagement();

-- In the inbox, to be seen is to be in a list that was looked at; to read is to open.
create function note_experiment_feed() returns trigger language plpgsql as $$
declare wanted int[];
begin
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
create trigger count_experiments after update on feed referencing new table as new_rows for each statement execute function note_experiment_feed();
