-- Texts that a revision's other texts take in: its own by name, and other templates' as they were when it was saved.
-- layout_ids are the templates that it names itself, so that who uses one is found.
alter table template_revisions
  add column partials jsonb not null default '{}' check (jsonb_typeof(partials) = 'object'),
  add column layouts jsonb not null default '{}' check (jsonb_typeof(layouts) = 'object'),
  add column layout_ids uuid[] not null default '{}';
create index template_revisions_layouts on template_revisions using gin (layout_ids) where layout_ids <> '{}';
