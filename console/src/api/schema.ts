// Made from the routes of the server by scripts/console-types.ts.

export interface Operations {
  createTemplate: {
    method: 'POST'
    path: '/api/templates'
    params: undefined
    query: undefined
    body: {
      name: string
      description?: string
      category?: string
      tags?: string[]
      enabled?: boolean
      version?: string
      schemaVersion?: string
      locale?: string
      channels: {
        default?: {
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
        in_app?: {
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
        email?: {
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
        sms?: {
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
        whatsapp?: {
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
        voice?: {
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
        push?: {
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
        web_push?: {
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
        slack?: {
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
        webhook?: {
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
        pagerduty?: {
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
        discord?: {
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
        telegram?: {
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
        teams?: {
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
        ntfy?: {
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
      }
      translations?: Record<
        string,
        {
          default?: {
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
          in_app?: {
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
          email?: {
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
          sms?: {
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
          whatsapp?: {
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
          voice?: {
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
          push?: {
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
          web_push?: {
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
          slack?: {
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
          webhook?: {
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
          pagerduty?: {
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
          discord?: {
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
          telegram?: {
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
          teams?: {
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
          ntfy?: {
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
      >
      variables?: {
        name: string
        type?: 'string' | 'number' | 'boolean' | 'date' | 'object' | 'array'
        required?: boolean
        default?: unknown
      }[]
      messages?: Record<string, Record<string, string>>
      partials?: Record<string, string>
      draft?: boolean
    }
    answer: {
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
      items: {
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
      }[]
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
      items: {
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
      }[]
    }
  }
  getTemplate: {
    method: 'GET'
    path: '/api/templates/{id}'
    params: { id: string }
    query: { revision?: number | 'last' }
    body: undefined
    answer: {
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
  }
  updateTemplate: {
    method: 'PUT'
    path: '/api/templates/{id}'
    params: { id: string }
    query: undefined
    body: {
      name: string
      description?: string
      category?: string
      tags?: string[]
      enabled?: boolean
      version?: string
      schemaVersion?: string
      locale?: string
      channels: {
        default?: {
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
        in_app?: {
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
        email?: {
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
        sms?: {
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
        whatsapp?: {
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
        voice?: {
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
        push?: {
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
        web_push?: {
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
        slack?: {
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
        webhook?: {
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
        pagerduty?: {
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
        discord?: {
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
        telegram?: {
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
        teams?: {
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
        ntfy?: {
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
      }
      translations?: Record<
        string,
        {
          default?: {
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
          in_app?: {
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
          email?: {
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
          sms?: {
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
          whatsapp?: {
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
          voice?: {
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
          push?: {
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
          web_push?: {
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
          slack?: {
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
          webhook?: {
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
          pagerduty?: {
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
          discord?: {
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
          telegram?: {
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
          teams?: {
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
          ntfy?: {
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
      >
      variables?: {
        name: string
        type?: 'string' | 'number' | 'boolean' | 'date' | 'object' | 'array'
        required?: boolean
        default?: unknown
      }[]
      messages?: Record<string, Record<string, string>>
      partials?: Record<string, string>
      draft?: boolean
      republish?: boolean
      revision?: number
    }
    answer: {
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
      items: {
        revision: number
        status: 'published' | 'draft' | 'earlier'
        version: string
        locale: string
        channels: string[]
        locales: string[]
        createdBy: string | null
        createdAt: string
      }[]
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
    answer: {
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
    answer: {
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
  }
  validateTemplate: {
    method: 'POST'
    path: '/api/templates/{id}/validate'
    params: { id: string }
    query: undefined
    body: {
      locale?: string
      channels: {
        default?: {
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
        in_app?: {
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
        email?: {
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
        sms?: {
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
        whatsapp?: {
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
        voice?: {
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
        push?: {
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
        web_push?: {
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
        slack?: {
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
        webhook?: {
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
        pagerduty?: {
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
        discord?: {
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
        telegram?: {
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
        teams?: {
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
        ntfy?: {
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
      }
      translations?: Record<
        string,
        {
          default?: {
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
          in_app?: {
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
          email?: {
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
          sms?: {
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
          whatsapp?: {
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
          voice?: {
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
          push?: {
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
          web_push?: {
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
          slack?: {
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
          webhook?: {
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
          pagerduty?: {
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
          discord?: {
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
          telegram?: {
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
          teams?: {
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
          ntfy?: {
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
      >
      variables?: {
        name: string
        type?: 'string' | 'number' | 'boolean' | 'date' | 'object' | 'array'
        required?: boolean
        default?: unknown
      }[]
      messages?: Record<string, Record<string, string>>
      partials?: Record<string, string>
    } | null
    answer: {
      valid: boolean
      warnings: {
        field: string
        message: string
      }[]
      errors: {
        field: string
        message: string
        line?: number
        column?: number
      }[]
      fields: string[]
    }
  }
  previewNotification: {
    method: 'POST'
    path: '/api/notifications/preview'
    params: undefined
    query: undefined
    body: {
      templateId?: string
      revision?: number | 'last'
      draft?: {
        locale?: string
        channels: {
          default?: {
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
          in_app?: {
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
          email?: {
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
          sms?: {
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
          whatsapp?: {
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
          voice?: {
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
          push?: {
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
          web_push?: {
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
          slack?: {
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
          webhook?: {
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
          pagerduty?: {
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
          discord?: {
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
          telegram?: {
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
          teams?: {
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
          ntfy?: {
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
        }
        translations?: Record<
          string,
          {
            default?: {
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
            in_app?: {
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
            email?: {
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
            sms?: {
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
            whatsapp?: {
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
            voice?: {
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
            push?: {
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
            web_push?: {
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
            slack?: {
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
            webhook?: {
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
            pagerduty?: {
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
            discord?: {
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
            telegram?: {
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
            teams?: {
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
            ntfy?: {
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
        >
        variables?: {
          name: string
          type?: 'string' | 'number' | 'boolean' | 'date' | 'object' | 'array'
          required?: boolean
          default?: unknown
        }[]
        messages?: Record<string, Record<string, string>>
        partials?: Record<string, string>
      }
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
    answer: {
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
      content: {
        subject?: string
        body: string
        html?: string
        image?: string
        language?: string
        actions?: unknown[]
        attachments?: unknown[]
        data?: Record<string, unknown>
      }
    }
  }
  putAsset: {
    method: 'PUT'
    path: '/api/assets/{name}'
    params: { name: string }
    query: { public?: boolean }
    body: undefined
    answer: {
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
  }
  listAssets: {
    method: 'GET'
    path: '/api/assets'
    params: undefined
    query: { limit: number; cursor?: string }
    body: undefined
    answer: {
      items: {
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
      }[]
      nextCursor: string | null
    }
  }
  sendNotification: {
    method: 'POST'
    path: '/api/notifications'
    params: undefined
    query: undefined
    body: {
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
      addresses?: {
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
    answer: {
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
    answer: {
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
