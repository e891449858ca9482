-- A revision may be kept before it is used: `revision` is the published one, 0 while none is, and `last_revision` the
-- highest number given out. Revisions above `revision` are drafts.
alter table templates add column last_revision int not null default 1;
update templates set last_revision = revision;
alter table templates add constraint published_exists check (revision between 0 and last_revision);

-- ICU messages by language and key, for the helper t.
alter table template_revisions add column messages jsonb not null default '{}' check (jsonb_typeof(messages) = 'object');

-- What a tenant writes in where a text is missing in the reader's language. BCP 47; null: as each template is written.
alter table tenants add column locale text check (length(locale) between 2 and 35);
