// JSON in both directions: what the host says, and the objects that handlers take and give.

using System;
using System.Collections.Generic;
using System.IO;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace Dunlin
{
    static class Json
    {
        static readonly JsonSerializerOptions Reading = Options(null);
        static readonly JsonSerializerOptions Writing = Options(null);
        static readonly JsonSerializerOptions WritingResponses = Options(new ResponseNames());

        static JsonSerializerOptions Options(JsonNamingPolicy names)
        {
            return new JsonSerializerOptions
            {
                PropertyNameCaseInsensitive = true,
                PropertyNamingPolicy = names,
                Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping
            };
        }

        /// <summary>A text as JSON. What is no Unicode in it is replaced.</summary>
        public static string Quoted(string text)
        {
            if (text == null)
            {
                return "null";
            }
            StringBuilder quoted = new StringBuilder("\"", text.Length + 16);
            foreach (char c in text)
            {
                if (c == '"' || c == '\\')
                {
                    quoted.Append('\\').Append(c);
                }
                else if (c < ' ' || char.IsSurrogate(c))
                {
                    quoted.Append("\\u").Append(((int)c).ToString("x4"));
                }
                else
                {
                    quoted.Append(c);
                }
            }
            return quoted.Append('"').ToString();
        }

        public static object Read(byte[] json, Type type)
        {
            return JsonSerializer.Deserialize(json, type, Reading);
        }

        /// <summary>
        /// A result as JSON. One that has a <c>StatusCode</c> is a response, whose members the contract writes with a small
        /// letter in front.
        /// </summary>
        public static byte[] Write(object value)
        {
            Type type = value == null ? typeof(object) : value.GetType();
            bool isResponse = type.GetProperty("StatusCode") != null;
            return JsonSerializer.SerializeToUtf8Bytes(value, type, isResponse ? WritingResponses : Writing);
        }

        sealed class ResponseNames : JsonNamingPolicy
        {
            public override string ConvertName(string name)
            {
                switch (name)
                {
                    case "StatusCode": return "statusCode";
                    case "Headers": return "headers";
                    case "Body": return "body";
                    case "IsBase64Encoded": return "isBase64Encoded";
                    default: return name;
                }
            }
        }

        /// <summary>The member's text; empty when it is absent.</summary>
        public static string Text(JsonElement element, string name)
        {
            JsonElement member;
            return Has(element, name, out member) ? member.GetString() : "";
        }

        /// <summary>The member's number; 0 when it is absent.</summary>
        public static int Number(JsonElement element, string name)
        {
            JsonElement member;
            return Has(element, name, out member) ? member.GetInt32() : 0;
        }

        public static bool Has(JsonElement element, string name, out JsonElement member)
        {
            member = default(JsonElement);
            return element.ValueKind == JsonValueKind.Object && element.TryGetProperty(name, out member)
                && member.ValueKind != JsonValueKind.Null;
        }
    }
}
