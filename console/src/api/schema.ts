// Made from the routes of the server by scripts/reference-docs.ts.

interface Shape1 {
  subject?: string
  title?: string
  body?: string
  html?: string
  htmlBody?: string
  mjml?: string
  image?: string
  layout?: 'base' | 'none'
  links?: 'short' | 'whole'
  actions?: {
    id?: string
    label: string
    url?: string
  }[]
  data?: Record<string, unknown> | string
}

interface Shape2 {
  default?: Shape1
  in_app?: Shape1
  email?: Shape1
  sms?: Shape1
  whatsapp?: Shape1
  voice?: Shape1
  push?: Shape1
  web_push?: Shape1
  slack?: Shape1
  webhook?: Shape1
  pagerduty?: Shape1
  discord?: Shape1
  telegram?: Shape1
  teams?: Shape1
  ntfy?: Shape1
}

interface Shape3 {
  default?: Shape1
  in_app?: Shape1
  email?: Shape1
  sms?: Shape1
  whatsapp?: Shape1
  voice?: Shape1
  push?: Shape1
  web_push?: Shape1
  slack?: Shape1
  webhook?: Shape1
  pagerduty?: Shape1
  discord?: Shape1
  telegram?: Shape1
  teams?: Shape1
  ntfy?: Shape1
  subject?: string
  title?: string
  body?: string
  html?: string
  htmlBody?: string
  mjml?: string
  image?: string
  layout?: 'base' | 'none'
  links?: 'short' | 'whole'
  actions?: {
    id?: string
    label: string
    url?: string
  }[]
  data?: Record<string, unknown> | string
}

interface Shape4 {
  name: string
  type?: 'string' | 'number' | 'boolean' | 'date' | 'object' | 'array'
  required?: boolean
  default?: unknown
}

interface Shape5 {
  name: string
  description?: string
  category?: string
  tags?: string[]
  enabled?: boolean
  version?: string
  schemaVersion?: string
  locale?: string
  channels: Shape2
  translations?: Record<string, Shape3>
  variables?: Shape4[]
  messages?: Record<string, Record<string, string>>
  partials?: Record<string, string>
  draft?: boolean
}

interface Shape6 {
  id: string
  name: string
  description: string
  category: string
  tags: string[]
  enabled: boolean
  revision: number
  publishedRevision: number | null
  lastRevision: number
  version: string
  schemaVersion: string
  locale: string
  locales: string[]
  createdBy: string | null
  createdAt: string
  updatedAt: string
  channels: Record<string, unknown>
  translations: Record<string, unknown>
  variables: unknown[]
  messages: Record<string, unknown>
  partials: Record<string, string>
  layouts: {
    name: string
    templateId: string
    revision: number
  }[]
  warnings: {
    field: string
    message: string
  }[]
  usedBy: {
    id: string
    name: string
    revision: number
  }[]
}

interface Shape7 {
  id: string
  name: string
  description: string
  category: string
  tags: string[]
  enabled: boolean
  revision: number
  publishedRevision: number | null
  lastRevision: number
  version: string
  schemaVersion: string
  locale: string
  locales: string[]
  createdBy: string | null
  createdAt: string
  updatedAt: string
  channels: string[]
}

interface Shape8 {
  name: string
  description: string
  category: string
  tags: string[]
  enabled: boolean
  locale: string
  channels: Record<string, unknown>
  translations: Record<string, unknown>
  variables: unknown[]
  messages: Record<string, unknown>
  schemaVersion: string
  partials: Record<string, string>
}

interface Shape9 {
  id: string
  name: string
  description: string
  category: string
  tags: string[]
  enabled: boolean
  revision: number
  publishedRevision: number | null
  lastRevision: number
  version: string
  schemaVersion: string
  locale: string
  locales: string[]
  createdBy: string | null
  createdAt: string
  updatedAt: string
  channels: Record<string, unknown>
  translations: Record<string, unknown>
  variables: unknown[]
  messages: Record<string, unknown>
  partials: Record<string, string>
  layouts: {
    name: string
    templateId: string
    revision: number
  }[]
}

interface Shape10 {
  name: string
  description?: string
  category?: string
  tags?: string[]
  enabled?: boolean
  version?: string
  schemaVersion?: string
  locale?: string
  channels: Shape2
  translations?: Record<string, Shape3>
  variables?: Shape4[]
  messages?: Record<string, Record<string, string>>
  partials?: Record<string, string>
  draft?: boolean
  republish?: boolean
  revision?: number
}

interface Shape11 {
  revision: number
  status: 'published' | 'draft' | 'earlier'
  version: string
  locale: string
  channels: string[]
  locales: string[]
  createdBy: string | null
  createdAt: string
}

interface Shape12 {
  locale?: string
  channels: Shape2
  translations?: Record<string, Shape3>
  variables?: Shape4[]
  messages?: Record<string, Record<string, string>>
  partials?: Record<string, string>
}

interface Shape13 {
  field: string
  message: string
  line?: number
  column?: number
}

interface Shape14 {
  valid: boolean
  warnings: {
    field: string
    message: string
  }[]
  errors: Shape13[]
  fields: string[]
}

interface Shape15 {
  templateId?: string
  revision?: number | 'last'
  draft?: Shape12
  userId?: string
  locale?: string
  channel?:
    | 'in_app'
    | 'email'
    | 'sms'
    | 'whatsapp'
    | 'voice'
    | 'push'
    | 'web_push'
    | 'slack'
    | 'webhook'
    | 'pagerduty'
    | 'discord'
    | 'telegram'
    | 'teams'
    | 'ntfy'
    | 'IN_APP'
    | 'EMAIL'
    | 'SMS'
    | 'WHATSAPP'
    | 'VOICE'
    | 'PUSH'
    | 'WEB_PUSH'
    | 'SLACK'
    | 'WEBHOOK'
    | 'PAGERDUTY'
    | 'DISCORD'
    | 'TELEGRAM'
    | 'TEAMS'
    | 'NTFY'
    | 'in-app'
    | 'web-push'
    | 'inApp'
    | 'webPush'
    | 'browser_push'
    | 'push_web'
    | 'push_mobile'
    | 'BROWSER_PUSH'
    | 'PUSH_WEB'
    | 'PUSH_MOBILE'
  data?: Record<string, unknown>
}

interface Shape16 {
  subject?: string
  body: string
  html?: string
  image?: string
  language?: string
  actions?: unknown[]
  attachments?: unknown[]
  data?: Record<string, unknown>
}

interface Shape17 {
  templateId?: string
  revision?: number
  channel: string
  locale: string
  size: {
    html?: number
    sms?: {
      encoding: 'gsm7' | 'ucs2'
      units: number
      segments: number
    }
  }
  warnings: string[]
  content: Shape16
}

interface Shape18 {
  name: string
  url: string
  public: boolean
  contentType: 'image/png' | 'image/jpeg' | 'image/gif' | 'image/webp'
  bytes: number
  width: number
  height: number
  sha256: string
  createdBy: string | null
  createdAt: string
  updatedAt: string
}

interface Shape19 {
  email?: string[]
  sms?: string[]
  whatsapp?: string[]
  voice?: string[]
  push?: string[]
  web_push?: string[]
  slack?: string[]
  webhook?: string[]
  pagerduty?: string[]
  discord?: string[]
  telegram?: string[]
  teams?: string[]
  ntfy?: string[]
}

interface Shape20 {
  recipientType?:
    | 'USER'
    | 'ROLE'
    | 'GROUP'
    | 'TOPIC'
    | 'SYSTEM'
    | 'user'
    | 'role'
    | 'group'
    | 'topic'
    | 'system'
  recipientId?: string
  recipients?: {
    type: 'user' | 'role' | 'group' | 'topic'
    id: string
  }[]
  address?: string
  addresses?: Shape19
  channels?: (
    | 'in_app'
    | 'email'
    | 'sms'
    | 'whatsapp'
    | 'voice'
    | 'push'
    | 'web_push'
    | 'slack'
    | 'webhook'
    | 'pagerduty'
    | 'discord'
    | 'telegram'
    | 'teams'
    | 'ntfy'
    | 'IN_APP'
    | 'EMAIL'
    | 'SMS'
    | 'WHATSAPP'
    | 'VOICE'
    | 'PUSH'
    | 'WEB_PUSH'
    | 'SLACK'
    | 'WEBHOOK'
    | 'PAGERDUTY'
    | 'DISCORD'
    | 'TELEGRAM'
    | 'TEAMS'
    | 'NTFY'
    | 'in-app'
    | 'web-push'
    | 'inApp'
    | 'webPush'
    | 'browser_push'
    | 'push_web'
    | 'push_mobile'
    | 'BROWSER_PUSH'
    | 'PUSH_WEB'
    | 'PUSH_MOBILE'
  )[]
  fallbackChannels?: (
    | 'in_app'
    | 'email'
    | 'sms'
    | 'whatsapp'
    | 'voice'
    | 'push'
    | 'web_push'
    | 'slack'
    | 'webhook'
    | 'pagerduty'
    | 'discord'
    | 'telegram'
    | 'teams'
    | 'ntfy'
    | 'IN_APP'
    | 'EMAIL'
    | 'SMS'
    | 'WHATSAPP'
    | 'VOICE'
    | 'PUSH'
    | 'WEB_PUSH'
    | 'SLACK'
    | 'WEBHOOK'
    | 'PAGERDUTY'
    | 'DISCORD'
    | 'TELEGRAM'
    | 'TEAMS'
    | 'NTFY'
    | 'in-app'
    | 'web-push'
    | 'inApp'
    | 'webPush'
    | 'browser_push'
    | 'push_web'
    | 'push_mobile'
    | 'BROWSER_PUSH'
    | 'PUSH_WEB'
    | 'PUSH_MOBILE'
  )[]
  templateId?: string
  templateVars?: Record<string, unknown>
  subject?: string
  body?: string
  bodyHtml?: string
  data?: Record<string, unknown>
  category?: string
  thread?: string
  metadata?: Record<string, unknown>
  priority?:
    | 'CRITICAL'
    | 'HIGH'
    | 'NORMAL'
    | 'LOW'
    | 'MEDIUM'
    | 'critical'
    | 'high'
    | 'normal'
    | 'low'
    | 'medium'
  scheduledAt?: string
  expiresAt?: string
}

interface Shape21 {
  id: string | null
  eventId: string
  status: 'PENDING' | 'ACCEPTED' | 'SUPPRESSED'
  notifications: {
    id: string
    recipientId: string
    channels: string[]
  }[]
  suppressed: number
}

export interface Operations {
  createTemplate: {
    method: 'POST'
    path: '/api/templates'
    params: undefined
    query: undefined
    body: Shape5
    answer: Shape6
  }
  listTemplates: {
    method: 'GET'
    path: '/api/templates'
    params: undefined
    query: {
      limit: number
      cursor?: string
      name?: string
      search?: string
      category?: string
      tag?: string
      enabled?: boolean
    }
    body: undefined
    answer: {
      items: Shape7[]
      nextCursor: string | null
    }
  }
  listTemplateDefaults: {
    method: 'GET'
    path: '/api/templates/defaults'
    params: undefined
    query: undefined
    body: undefined
    answer: {
      items: Shape8[]
    }
  }
  getTemplate: {
    method: 'GET'
    path: '/api/templates/{id}'
    params: { id: string }
    query: { revision?: number | 'last' }
    body: undefined
    answer: Shape9
  }
  updateTemplate: {
    method: 'PUT'
    path: '/api/templates/{id}'
    params: { id: string }
    query: undefined
    body: Shape10
    answer: Shape6
  }
  deleteTemplate: {
    method: 'DELETE'
    path: '/api/templates/{id}'
    params: { id: string }
    query: undefined
    body: undefined
    answer: null
  }
  listTemplateVersions: {
    method: 'GET'
    path: '/api/templates/{id}/versions'
    params: { id: string }
    query: { limit: number; cursor?: string }
    body: undefined
    answer: {
      items: Shape11[]
      nextCursor: string | null
    }
  }
  diffTemplate: {
    method: 'GET'
    path: '/api/templates/{id}/diff'
    params: { id: string }
    query: { from?: number; to?: number | 'last' }
    body: undefined
    answer: {
      from: number
      to: number
      changes: {
        field: string
        before?: unknown
        after?: unknown
      }[]
    }
  }
  publishTemplate: {
    method: 'POST'
    path: '/api/templates/{id}/publish'
    params: { id: string }
    query: undefined
    body: {
      revision?: number
      republish?: boolean
    }
    answer: Shape6
  }
  rollBackTemplate: {
    method: 'POST'
    path: '/api/templates/{id}/rollback'
    params: { id: string }
    query: undefined
    body: {
      revision?: number
      version?: string
      republish?: boolean
    }
    answer: Shape6
  }
  validateTemplate: {
    method: 'POST'
    path: '/api/templates/{id}/validate'
    params: { id: string }
    query: undefined
    body: Shape12 | null
    answer: Shape14
  }
  previewNotification: {
    method: 'POST'
    path: '/api/notifications/preview'
    params: undefined
    query: undefined
    body: Shape15
    answer: Shape17
  }
  putAsset: {
    method: 'PUT'
    path: '/api/assets/{name}'
    params: { name: string }
    query: { public?: boolean }
    body: undefined
    answer: Shape18
  }
  listAssets: {
    method: 'GET'
    path: '/api/assets'
    params: undefined
    query: { limit: number; cursor?: string }
    body: undefined
    answer: {
      items: Shape18[]
      nextCursor: string | null
    }
  }
  sendNotification: {
    method: 'POST'
    path: '/api/notifications'
    params: undefined
    query: undefined
    body: Shape20
    answer: Shape21
  }
  sendTestOfTemplate: {
    method: 'POST'
    path: '/api/templates/{id}/test'
    params: { id: string }
    query: undefined
    body: {
      userId?: string
      channel?:
        | 'in_app'
        | 'email'
        | 'sms'
        | 'whatsapp'
        | 'voice'
        | 'push'
        | 'web_push'
        | 'slack'
        | 'webhook'
        | 'pagerduty'
        | 'discord'
        | 'telegram'
        | 'teams'
        | 'ntfy'
        | 'IN_APP'
        | 'EMAIL'
        | 'SMS'
        | 'WHATSAPP'
        | 'VOICE'
        | 'PUSH'
        | 'WEB_PUSH'
        | 'SLACK'
        | 'WEBHOOK'
        | 'PAGERDUTY'
        | 'DISCORD'
        | 'TELEGRAM'
        | 'TEAMS'
        | 'NTFY'
        | 'in-app'
        | 'web-push'
        | 'inApp'
        | 'webPush'
        | 'browser_push'
        | 'push_web'
        | 'push_mobile'
        | 'BROWSER_PUSH'
        | 'PUSH_WEB'
        | 'PUSH_MOBILE'
      templateVars?: Record<string, unknown>
    }
    answer: Shape21
  }
}

/** Where each operation is, for calling it. */
export const PATHS = {
  createTemplate: ['POST', '/api/templates'],
  listTemplates: ['GET', '/api/templates'],
  listTemplateDefaults: ['GET', '/api/templates/defaults'],
  getTemplate: ['GET', '/api/templates/{id}'],
  updateTemplate: ['PUT', '/api/templates/{id}'],
  deleteTemplate: ['DELETE', '/api/templates/{id}'],
  listTemplateVersions: ['GET', '/api/templates/{id}/versions'],
  diffTemplate: ['GET', '/api/templates/{id}/diff'],
  publishTemplate: ['POST', '/api/templates/{id}/publish'],
  rollBackTemplate: ['POST', '/api/templates/{id}/rollback'],
  validateTemplate: ['POST', '/api/templates/{id}/validate'],
  previewNotification: ['POST', '/api/notifications/preview'],
  putAsset: ['PUT', '/api/assets/{name}'],
  listAssets: ['GET', '/api/assets'],
  sendNotification: ['POST', '/api/notifications'],
  sendTestOfTemplate: ['POST', '/api/templates/{id}/test'],
} as const
