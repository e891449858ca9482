-- Messages that all templates of a tenant may say: one row a language, replaced as a whole and read as a whole.
create table message_catalogues (
  tenant_id  int not null references tenants,
  locale     text not null check (length(locale) between 2 and 35),   -- BCP 47, in canonical case
  messages   jsonb not null check (jsonb_typeof(messages) = 'object'),
  revision   int not null default 1 check (revision > 0),
  updated_by text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (tenant_id, locale)
);
create trigger changes_insert after insert on message_catalogues
  referencing new table as new_rows for each statement execute function note_change('message', 'locale');
create trigger changes_update after update on message_catalogues
  referencing new table as new_rows for each statement execute function note_change('message', 'locale');
create trigger changes_delete after delete on message_catalogues
  referencing old table as old_rows for each statement execute function note_change('message', 'locale');
