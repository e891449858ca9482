-- What a preference shows beside its content; and people are forgotten by caches when their say in a topic changes.

alter table preferences add column id uuid not null default uuidv7();
alter table preferences add column created_at timestamptz not null default now();

-- A topic set to IMPORTANT or NONE is part of what is decided by (server/people/facts.ts); ALL is nothing said, and
-- so a million people who join a topic leave no million changes.
create function note_topic_level_change() returns trigger language plpgsql as $$
begin
  if tg_op <> 'INSERT' then
    insert into changes (kind, tenant_id, key)
      select distinct 'user', tenant_id, user_id from old_rows where kind = 'topic' and level <> 'ALL';
  end if;
  if tg_op <> 'DELETE' then
    insert into changes (kind, tenant_id, key)
      select distinct 'user', tenant_id, user_id from new_rows where kind = 'topic' and level <> 'ALL';
  end if;
  return null;
end $$;

create trigger changes_insert after insert on memberships
  referencing new table as new_rows for each statement execute function note_topic_level_change();
create trigger changes_update after update on memberships
  referencing old table as old_rows new table as new_rows for each statement execute function note_topic_level_change();
create trigger changes_delete after delete on memberships
  referencing old table as old_rows for each statement execute function note_topic_level_change();
